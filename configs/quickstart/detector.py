"""A tiny detector on the toy set, from scratch, in minutes on two CPU cores."""

_base_ = [
    "../_base_/models/grounding_dino_tiny.py",
    "../_base_/datasets/toy.py",
    "../_base_/schedules/quickstart.py",
    "../_base_/default_runtime.py",
]

# From random weights convolutions learn faster than windows, and a decoder layer costs less than
# one of the encoder.
model = dict(
    encoder=dict(num_layers=1),
    decoder=dict(num_layers=3),
    test_cfg=_base_.test_protocol,
    backbone=dict(
        _delete_=True,
        type="ResNet",
        depth=18,
        base_channels=32,
        stem_channels=32,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type="BN"),
        # Statistics stay 0 and 1: what an image gives depends on no other and on no process.
        norm_eval=True,
        style="pytorch",
    ),
)

# Class names are what is measured, and minutes are few: no sentences.
train_dataloader = dict(
    # Loading is a thirtieth of a step on a CPU: workers would take more than they give.
    num_workers=0,
    persistent_workers=False,
    dataset=dict(datasets=[_base_.detection_part]),
)
