"""Stage two with SigLIP and Qwen2.5 1.5B, for one GPU."""

_base_ = "./finetune_siglip_qwen2.5_0.5b.py"

model = dict(lmm=dict(model="Qwen/Qwen2.5-1.5B-Instruct"))
load_from = "work_dirs/pretrain_siglip_qwen2.5_1.5b/epoch_1.pth"
