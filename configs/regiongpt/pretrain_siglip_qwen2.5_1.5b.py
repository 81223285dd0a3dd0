"""Stage one with SigLIP and Qwen2.5 1.5B, for one GPU."""

_base_ = "./pretrain_siglip_qwen2.5_0.5b.py"

model = dict(lmm=dict(model="Qwen/Qwen2.5-1.5B-Instruct"))
