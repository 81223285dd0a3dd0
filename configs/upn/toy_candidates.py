"""Proposals of the toy set for a language model that chooses among them."""

_base_ = "./toy.py"

model = dict(
    num_queries=100,
    # Boxes near to right ones teach to place them exactly, and of places much is to be learned.
    dn_cfg=dict(box_noise_scale=0.3),
    bbox_head=dict(loss_bbox=dict(loss_weight=10.0), loss_iou=dict(loss_weight=4.0)),
    test_cfg=dict(max_per_img=100),
)
