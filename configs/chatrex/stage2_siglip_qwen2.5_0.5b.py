"""Stage two with SigLIP and Qwen2.5 0.5B, for one GPU: 8 times 16 conversations a step."""

_base_ = "./stage1_siglip_qwen2.5_0.5b.py"

trained = dict(frozen=False, dtype="float32", checkpoint=True)
model = dict(
    towers=dict(dual=dict(coarse=trained, fine=trained)),
    lmm=dict(frozen=False, dtype="float32"),
)
load_from = "work_dirs/stage1_siglip_qwen2.5_0.5b/epoch_1.pth"

train_dataloader = dict(batch_size=16, dataset=dict(datasets=_base_.stage_two))
optim_wrapper = dict(optimizer=dict(lr=2e-5))
auto_scale_lr = dict(base_batch_size=128)
