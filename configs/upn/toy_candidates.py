"""Proposals of the toy set for a language model that chooses among them.

Twice the queries, and images enlarged three times: their objects are 26 to 60 pixels wide, and what
is to be found exactly must be seen in detail.
"""

_base_ = "./toy.py"

model = dict(
    num_queries=100,
    # Boxes near to right ones teach to place them exactly, and of places much is to be learned.
    dn_cfg=dict(box_noise_scale=0.3),
    bbox_head=dict(loss_bbox=dict(loss_weight=10.0), loss_iou=dict(loss_weight=4.0)),
    test_cfg=dict(max_per_img=100),
)

scale = (384, 384)
load = _base_.load
load[-1]["scales"] = [scale]
fine_part = dict(_base_.fine_part, pipeline=[*load, _base_.fine, _base_.pack])
large = dict(_base_.large, min_gt_bbox_wh=(108, 108))  # pixels of the enlarged image
coarse_part = dict(_base_.coarse_part, pipeline=[*load, large, _base_.coarse, _base_.pack])
train_dataloader = dict(dataset=dict(datasets=[fine_part, coarse_part]))
test_pipeline = _base_.test_pipeline
test_pipeline[1]["scale"] = scale
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
