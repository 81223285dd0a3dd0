"""A folder with detection JSONL for training and COCO json for evaluation, at sizes for two cores.

DATA_ROOT/{odvg_od_train.jsonl, odvg_label_map.json, instances_val.json, images/}. The classes of
both files have the same names.
"""

data_root = "data/finetune/"
tokenizer_name = "data/toy/bert"
train_scales = [(144, 256), (160, 288), (176, 320)]
test_scale = (160, 288)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomChoiceResize", scales=train_scales, keep_ratio=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type="RandomSamplingNegPos", tokenizer_name=tokenizer_name, max_tokens=256),
    dict(type="PackGroundingInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="FixScaleResize", scale=test_scale, keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackGroundingInputs"),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="ODVGDataset",
        data_root=data_root,
        ann_file="odvg_od_train.jsonl",
        label_map_file="odvg_label_map.json",
        data_prefix=dict(img="images/"),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
        return_classes=True,
    ),
)
val_dataloader = dict(
    # An image alone is not padded: any number of processes measures the same to the last digit.
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file="instances_val.json",
        data_prefix=dict(img="images/"),
        test_mode=True,
        pipeline=test_pipeline,
        return_classes=True,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="CocoMetric", ann_file=data_root + "instances_val.json", metric="bbox")
test_evaluator = val_evaluator
