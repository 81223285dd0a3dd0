"""A folder with COCO json files, at sizes for a tiny detector on two cores."""

_base_ = "./coco_json.py"

train_scales = [(144, 256), (160, 288), (176, 320)]
test_scale = (160, 288)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomChoiceResize", scales=train_scales, keep_ratio=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type="RandomSamplingNegPos"),
    dict(type="PackGroundingInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="FixScaleResize", scale=test_scale, keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackGroundingInputs"),
]

train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
# An image alone is not padded: any number of processes measures the same to the last digit.
val_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
