"""Captions whose phrases have masks: GranD-f's three parts, and classes of label maps."""

_base_ = "./pretrain.py"

model = dict(slots=dict(image=dict(connector=dict(source=None, frozen=True))))
load_from = "work_dirs/pretrain/iter_50000.pth"

train_dataloader = dict(
    sampler=dict(shares=[3, 3, 3, 1, 0.2, 0.2, 0.2, 0.2, 0.2]),
    batch_sampler=dict(tasks=["segment"] * 9),
    dataset=dict(datasets=[*_base_.grounded_captions, *_base_.semantic]),
)
