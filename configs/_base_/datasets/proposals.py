"""Boxes without names from several sets, each tied to a granularity; COCO's val2017 to measure.

A set is a JSONL file of detection rows (docs/proposals.md), whose names are not read. A set that you
do not have is left out of the lists.
"""

data_root = "data/"

load = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoiceResize",
        scales=[(short_side, 1333) for short_side in range(480, 801, 32)],
        keep_ratio=True,
    ),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
]
fine_pipeline = [
    *load,
    dict(type="AnyObjectPrompt", granularity="fine"),
    dict(type="PackGroundingInputs"),
]
coarse_pipeline = [
    *load,
    dict(type="AnyObjectPrompt", granularity="coarse"),
    dict(type="PackGroundingInputs"),
]

fine_sets = ["sa1b"]
coarse_sets = [
    "coco",
    "lvis",
    "objects365",
    "openimages",
    "bamboo",
    "crowdhuman",
    "hiertext",
    "sroie",
    "egoobjects",
]
part = dict(
    type="ODVGDataset",
    ann_file="annotations/proposals_train.jsonl",
    label_map_file="annotations/proposals_train_label_map.json",
    data_prefix=dict(img="images/"),
    need_text=False,
    filter_cfg=dict(filter_empty_gt=False),
)
fine_parts = [
    dict(**part, data_root=f"{data_root}{name}/", pipeline=fine_pipeline) for name in fine_sets
]
coarse_parts = [
    dict(**part, data_root=f"{data_root}{name}/", pipeline=coarse_pipeline) for name in coarse_sets
]
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(type="ConcatDataset", datasets=[*fine_parts, *coarse_parts]),
)

test_pipeline = [
    dict(type="LoadImageFromFile", imdecode_backend="pillow"),
    dict(type="FixScaleResize", scale=(800, 1333), keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="AnyObjectPrompt", granularity="coarse"),
    dict(type="PackGroundingInputs"),
]
coco_root = data_root + "coco/"
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=coco_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="ProposalRecallMetric", ann_file=coco_root + "annotations/instances_val2017.json"
)
test_evaluator = val_evaluator
