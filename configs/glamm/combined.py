"""All tasks: captions of pictures in 15 of 100 steps, of regions in 40, masks in 45."""

_base_ = "./gcg.py"

train_dataloader = dict(
    # Of captions 1:2, of regions equal parts, of masks 4 for label maps together, 3 for
    # expressions together, then 2, 2, 2, 1.
    sampler=dict(
        shares=[
            *(14, 28),
            *(22.4, 22.4, 22.4, 22.4, 22.4),
            *(7.2, 7.2, 7.2, 7.2, 7.2),
            *(6.75, 6.75, 6.75, 6.75),
            *(18, 18, 18, 9),
        ]
    ),
    batch_sampler=dict(tasks=["image"] * 2 + ["region"] * 5 + ["segment"] * 13),
    dataset=dict(
        datasets=[
            *_base_.captions,
            *_base_.region_captions,
            *_base_.semantic,
            *_base_.expressions,
            *_base_.grounded_captions,
        ]
    ),
)
