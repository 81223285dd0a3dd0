"""Stage two: the language model trains too. Written for 8 GPUs: 128 conversations a step."""

_base_ = ["./pretrain.py", "../_base_/strategies/fsdp2.py"]

model = dict(lmm=dict(frozen=False, dtype="float32"))
load_from = "work_dirs/pretrain/epoch_1.pth"

train_dataloader = dict(batch_size=16, dataset=dict(datasets=_base_.stage_two))
optim_wrapper = dict(optimizer=dict(lr=2e-5))
auto_scale_lr = dict(base_batch_size=128)
