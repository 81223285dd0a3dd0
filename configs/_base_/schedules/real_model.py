"""Ten epochs of Real-Data's 186,938 pictures: 29,209 iterations of 64, and two steps down.

The learning rate is the one that was in effect: a configured 2e-6 was meant for 32 pictures, and
scaled to the 64 of an iteration.
"""

_base_ = "./llmdet_150k.py"

max_iters = 29_209
schedule_length = max_iters

train_cfg = dict(max_iters=max_iters, val_interval=2921)

optim_wrapper = dict(optimizer=dict(lr=4e-6))

param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=1000),
    dict(
        type="MultiStepLR",
        begin=0,
        end=max_iters,
        by_epoch=False,
        milestones=[17_525, 23_367],  # the ends of the 6th and of the 8th epoch
        gamma=0.1,
    ),
]

# 16 GPUs x 4; with others the rate moves in proportion.
auto_scale_lr = dict(enable=True, base_batch_size=64)
