"""The main stage: 150,000 iterations of 16 images, AdamW, two steps down."""

max_iters = 150_000
# What param_scheduler is written for. With another max_iters, warm-up, steps and end move in
# proportion.
schedule_length = max_iters

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=10_000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.0),
            backbone=dict(lr_mult=0.1),
            language_model=dict(lr_mult=0.1),
        )
    ),
)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=1000),
    dict(
        type="MultiStepLR",
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[120_000, 140_000],
        gamma=0.1,
    ),
]

# The learning rate is meant for 16 images an iteration, e.g. 8 GPUs x 2.
auto_scale_lr = dict(enable=False, base_batch_size=16)
