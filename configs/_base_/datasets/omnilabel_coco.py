"""The COCO part of OmniLabel, asked for its descriptions alone, for validation while training."""

omnilabel_root = "data/omnilabel/"
omnilabel_ann_file = "dataset_coco_val.json"

test_pipeline = [
    dict(type="LoadImageFromFile", imdecode_backend="pillow"),
    dict(type="FixScaleResize", scale=(800, 1333), keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackGroundingInputs"),
]

val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="OmniLabelDataset",
        data_root=omnilabel_root,
        ann_file=omnilabel_ann_file,
        data_prefix=dict(img="images/"),
        categories=False,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type="OmniLabelMetric", ann_file=omnilabel_root + omnilabel_ann_file, categories=False
)
test_evaluator = val_evaluator
