"""The generated toy set; make it with ``python -m llmdet.datasets.toy data/toy``.

Training mixes captions and class names. Validation shows combinations of training; the test split
shows combinations that training never had, which are the rare classes of its LVIS file.
"""

data_root = "data/toy/"
train_scales = [(128, 128)]  # fits each image into 128 pixels
test_scale = (128, 128)

# No flip: captions say left and right.
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomChoiceResize", scales=train_scales, keep_ratio=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(
        type="RandomSamplingNegPos",
        # Always all 40 classes: what is absent teaches as much as what is there.
        num_sample_negative=40,
        full_sampling_prob=1.0,
        num_region_caption=16,
    ),
    dict(type="TokenizeConversations"),  # as the model reads them; nothing for a plain detector
    dict(type="PackGroundingInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="FixScaleResize", scale=test_scale, keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackGroundingInputs"),
]

train_part = dict(
    type="ODVGDataset",
    data_root=data_root,
    data_prefix=dict(img="images/"),
    pipeline=train_pipeline,
    return_classes=True,
)
grounding_part = dict(**train_part, ann_file="annotations/train_grounding.jsonl")
detection_part = dict(
    **train_part,
    ann_file="annotations/train_detection.jsonl",
    label_map_file="annotations/label_map.json",
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(type="ConcatDataset", datasets=[grounding_part, detection_part]),
)

eval_part = dict(
    type="CocoDataset",
    data_root=data_root,
    data_prefix=dict(img="images/"),
    test_mode=True,
    pipeline=test_pipeline,
    return_classes=True,
)
eval_loader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
)
val_dataloader = dict(
    **eval_loader, dataset=dict(**eval_part, ann_file="annotations/val_seen_coco.json")
)
test_dataloader = dict(
    **eval_loader, dataset=dict(**eval_part, ann_file="annotations/val_unseen_coco.json")
)
# Fixed AP counts the best boxes of every prompt; a model that is evaluated takes this as test_cfg.
test_protocol = dict(limit_per="chunk")
val_evaluator = [
    dict(type="CocoMetric", ann_file=data_root + "annotations/val_seen_coco.json", metric="bbox"),
    dict(type="LVISFixedAPMetric", ann_file=data_root + "annotations/val_seen_lvis.json"),
]
test_evaluator = [
    dict(type="CocoMetric", ann_file=data_root + "annotations/val_unseen_coco.json", metric="bbox"),
    dict(type="LVISFixedAPMetric", ann_file=data_root + "annotations/val_unseen_lvis.json"),
]
