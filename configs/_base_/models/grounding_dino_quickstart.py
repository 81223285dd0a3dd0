"""The tiny detector of the quickstart, which learns the toy set in minutes on two CPU cores."""

_base_ = "./grounding_dino_tiny.py"

# From random weights convolutions learn faster than windows, and a decoder layer costs less than
# one of the encoder.
model = dict(
    encoder=dict(num_layers=1),
    decoder=dict(num_layers=3),
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
