"""Sentences about toy scenes, in Real-Data's form; ``tools/benchmark/real_model.py`` writes them."""

data_root = "data/toy_descriptions/"
train_file = "train_true.jsonl"  # or train_raw.jsonl, train_refined.jsonl

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),  # left and right change places in the words too
    dict(type="RandomChoiceResize", scales=[(128, 128)], keep_ratio=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(
        type="SampleExpressions",
        shares=dict(llm=0.4, name=0.2, negation=0.2, counting=0.2),
        num_negative=50,
    ),
    dict(type="PackGroundingInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="FixScaleResize", scale=(128, 128), keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackGroundingInputs"),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="ODVGDataset",
        data_root=data_root,
        ann_file=train_file,
        data_prefix=dict(img="world/"),
        pipeline=train_pipeline,
        return_classes=True,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="OmniLabelDataset",
        data_root=data_root,
        ann_file="val_omnilabel.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="OmniLabelMetric", ann_file=data_root + "val_omnilabel.json", categories=False
)
test_evaluator = val_evaluator
