"""The alignment stage: one epoch at a high rate, cosine after a short warm-up."""

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1)
schedule_length = 1  # epochs; with another max_epochs, warm-up and decay move in proportion

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.0),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)

warmup = 0.03  # of the epoch
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=0.01,
        by_epoch=True,
        begin=0,
        end=warmup,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        begin=warmup,
        end=1,
        T_max=1 - warmup,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
