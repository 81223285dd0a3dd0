"""Proposals of the toy set for a language model that chooses among them.

Fine ones alone, as all objects are candidates; the coarse prompt is not learned. Beside the shapes
of the toy set lie objects of any outline, so that a shape that was never seen is not taken for one
of six; ``python -m llmdet.datasets.toy.outlines data/toy_outlines`` makes them.
"""

_base_ = "./toy.py"

model = dict(
    num_queries=100,
    # Boxes near to right ones teach to place them exactly, and of places much is to be learned.
    dn_cfg=dict(box_noise_scale=0.3),
    bbox_head=dict(loss_bbox=dict(loss_weight=10.0), loss_iou=dict(loss_weight=4.0)),
    test_cfg=dict(max_per_img=100),
)

outlines_part = dict(_base_.fine_part)
outlines_part.update(
    data_root="data/toy_outlines/",
    ann_file="annotations/proposals_train.jsonl",
    label_map_file="annotations/proposals_train_label_map.json",
)
train_dataloader = dict(dataset=dict(datasets=[_base_.fine_part, outlines_part]))
