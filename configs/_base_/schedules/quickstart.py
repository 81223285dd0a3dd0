"""A run of minutes on two CPU cores: warm-up, a long level, then cosine almost to zero."""

max_iters = 1550
# With another max_iters, warm-up and decay move in proportion.
schedule_length = max_iters
fall = 820

# No validation: what the run comes to is measured afterwards, on more than one split.
train_cfg = dict(
    type="IterBasedTrainLoop", max_iters=max_iters, val_begin=10**9, val_interval=max_iters
)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=110),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=fall, end=max_iters, eta_min_ratio=0.02),
]

auto_scale_lr = dict(enable=False, base_batch_size=8)
