"""Steps of 160 conversations at one rate: a short warm-up, then a line down to zero.

Written for 8 GPUs, 2 conversations at a time, 10 times a step; iterations count these times.
"""

max_iters = 50_000  # 5,000 steps
# With another max_iters, warm-up and decay move in proportion.
schedule_length = max_iters

train_cfg = dict(
    type="IterBasedTrainLoop", max_iters=max_iters, val_begin=10**9, val_interval=max_iters
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-4, betas=(0.9, 0.95), weight_decay=0.0),
    clip_grad=dict(max_norm=1.0, norm_type=2),
    accumulative_counts=10,
)

warmup = 1000
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=warmup),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=warmup, end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=160)
