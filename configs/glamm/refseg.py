"""Masks of what expressions mean: RefCOCO, RefCOCO+, RefCOCOg and refCLEF, in equal shares."""

_base_ = "./gcg.py"

max_iters = 25_000
schedule_length = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=_base_.warmup),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=_base_.warmup, end=max_iters),
]
train_dataloader = dict(
    sampler=dict(shares=[1, 1, 1, 1]),
    batch_sampler=dict(tasks=["segment"] * 4),
    dataset=dict(datasets=_base_.expressions),
)
