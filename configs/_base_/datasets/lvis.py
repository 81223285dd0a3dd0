"""LVIS minival (4,809 images), for zero-shot evaluation by fixed AP."""

lvis_root = "data/coco/"
lvis_ann_file = "annotations/lvis_v1_minival_inserted_image_name.json"

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
        type="LVISV1Dataset",
        data_root=lvis_root,
        ann_file=lvis_ann_file,
        data_prefix=dict(img=""),
        test_mode=True,
        pipeline=test_pipeline,
        return_classes=True,
    ),
)
test_dataloader = val_dataloader

# Fixed AP has no limit per image: the max_per_img best boxes of every prompt count, and prompts
# have 40 classes as published. Each model that is evaluated on LVIS takes this as its test_cfg.
test_protocol = dict(limit_per="chunk", chunked_size=40)
val_evaluator = dict(type="LVISFixedAPMetric", ann_file=lvis_root + lvis_ann_file)
test_evaluator = val_evaluator
