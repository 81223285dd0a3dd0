"""Stage three: all parts learn to converse about objects, and not to forget other questions."""

_base_ = "./stage2.py"

load_from = "work_dirs/stage2/epoch_1.pth"
train_dataloader = dict(dataset=dict(datasets=_base_.stage_three))
