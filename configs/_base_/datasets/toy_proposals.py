"""The toy set without names: fine is every object, coarse the large ones alone.

``python -m llmdet.datasets.toy data/toy`` makes it.
"""

_base_ = "./toy.py"

data_root = "data/toy/"
fine = dict(type="AnyObjectPrompt", granularity="fine")
coarse = dict(type="AnyObjectPrompt", granularity="coarse")
pack = dict(type="PackGroundingInputs")
load = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomChoiceResize", scales=[(128, 128)], keep_ratio=True),
]
# An object has 0.20 to 0.26 or 0.34 to 0.46 of the short side of its image.
large = dict(type="FilterAnnotations", min_gt_bbox_wh=(36, 36), keep_empty=False)
fine_part = dict(**_base_.detection_part)
coarse_part = dict(**_base_.detection_part)
fine_part.update(need_text=False, pipeline=[*load, fine, pack])
coarse_part.update(need_text=False, pipeline=[*load, large, coarse, pack])

train_dataloader = dict(
    # Loading is a thirtieth of a step on a CPU: workers would take more than they give.
    num_workers=0,
    persistent_workers=False,
    dataset=dict(datasets=[fine_part, coarse_part]),
)
test_pipeline = [*_base_.test_pipeline[:-1], fine, pack]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
limits = (5, 10, 50)
val_evaluator = dict(
    _delete_=True,
    type="ProposalRecallMetric",
    ann_file=data_root + "annotations/val_seen_coco.json",
    limits=limits,
)
test_evaluator = dict(
    _delete_=True,
    type="ProposalRecallMetric",
    ann_file=data_root + "annotations/val_unseen_coco.json",
    limits=limits,
)
