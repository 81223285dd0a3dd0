"""Real-Data: its base sets of Objects365 and OpenImages, and LVIS; see data/README.md.

186,938 pictures. Each of the three sets gives a third of them, whatever its size.
"""

data_root = "data/"

scales = [(short_side, 1333) for short_side in range(480, 801, 32)]
# As DETR: half of the pictures are cropped, from one that is scaled down, and scaled again.
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),  # left and right change places in the words too
    dict(
        type="RandomChoice",
        transforms=[
            [dict(type="RandomChoiceResize", scales=scales, keep_ratio=True)],
            [
                dict(
                    type="RandomChoiceResize",
                    scales=[(400, 4200), (500, 4200), (600, 4200)],
                    keep_ratio=True,
                ),
                dict(
                    type="RandomCrop",
                    crop_type="absolute_range",
                    crop_size=(384, 600),
                    allow_negative_crop=True,
                ),
                dict(type="RandomChoiceResize", scales=scales, keep_ratio=True),
            ],
        ],
    ),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(
        type="SampleExpressions",
        shares=dict(category=0.5, vlm_short=0.2, llm=0.2, vlm_long=0.1),
        num_negative=50,
    ),
    dict(type="PackGroundingInputs"),
]

part = dict(type="ODVGDataset", pipeline=train_pipeline, return_classes=True)
objects365_part = dict(
    **part,
    data_root=data_root + "objects365/",
    ann_file="real_data_objects365_base.jsonl",
    data_prefix=dict(img="images/"),
)
openimages_part = dict(
    **part,
    data_root=data_root + "openimages/",
    ann_file="real_data_openimages_base.jsonl",
    data_prefix=dict(img="images/"),
)
lvis_part = dict(
    **part,
    data_root=data_root + "coco/",
    ann_file="annotations/real_data_lvis.jsonl",
    data_prefix=dict(img="train2017/"),
)

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="ShareSampler", shares=[1, 1, 1]),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(type="ConcatDataset", datasets=[objects365_part, openimages_part, lvis_part]),
)
