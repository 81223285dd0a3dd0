"""GroundingCap-1M in the folder layout of its authors, for training; see data/README.md."""

data_root = "data/"
num_region_caption = 16

# No flip: captions say left and right.
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(short_side, 1333) for short_side in range(480, 801, 32)],
        keep_ratio=True,
    ),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(
        type="RandomSamplingNegPos",
        num_sample_negative=85,
        num_region_caption=num_region_caption,
    ),
    dict(type="TokenizeConversations"),  # as the model reads them; nothing for a plain detector
    dict(type="PackGroundingInputs"),
]

part = dict(
    type="ODVGDataset",
    filter_cfg=dict(filter_empty_gt=False),
    pipeline=train_pipeline,
    return_classes=True,
    use_short_cap=False,
    use_uniform_prompt=True,
    clean_caption=True,
)
coco_part = dict(
    **part,
    data_root=data_root + "coco/",
    ann_file="annotations/instances_train2017_vg_merged6.jsonl",
    data_prefix=dict(img="train2017/"),
    actual_dataset_mode="OD",
)
flickr30k_part = dict(
    **part,
    data_root=data_root + "flickr30k_entities/",
    ann_file="flickr_train_vg7.jsonl",
    data_prefix=dict(img="flickr30k_images/"),
    actual_dataset_mode="VG",
)
gqa_part = dict(
    **part,
    data_root=data_root + "gqa/",
    ann_file="gqa_train_vg7.jsonl",
    data_prefix=dict(img="images/"),
    actual_dataset_mode="VG",
)
llava_cap_part = dict(
    **part,
    data_root=data_root + "llava_cap/",
    ann_file="LLaVA-ReCap-558K_tag_box_vg7.jsonl",
    data_prefix=dict(img="images/"),
    actual_dataset_mode="OD",
)
v3det_part = dict(
    **part,
    data_root=data_root + "v3det/",
    ann_file="annotations/v3det_2023_v1_train_vg7.jsonl",
    data_prefix=dict(img=""),
    actual_dataset_mode="OD",
)

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="ConcatDataset",
        datasets=[coco_part, flickr30k_part, gqa_part, llava_cap_part, v3det_part],
    ),
)
