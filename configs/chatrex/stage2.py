"""Stage two: all parts learn to name objects. Written for 8 GPUs: 128 conversations a step."""

_base_ = ["./stage1.py", "../_base_/strategies/fsdp2.py"]

trained = dict(frozen=False, dtype="float32", checkpoint=True)
model = dict(
    towers=dict(dual=dict(coarse=trained, fine=trained)),
    lmm=dict(frozen=False, dtype="float32"),
)
load_from = "work_dirs/stage1/epoch_1.pth"

train_dataloader = dict(batch_size=16, dataset=dict(datasets=_base_.stage_two))
optim_wrapper = dict(optimizer=dict(lr=2e-5))
auto_scale_lr = dict(base_batch_size=128)
