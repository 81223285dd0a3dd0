"""Conversations with regions as JSONL (docs/regions.md); what each of the two stages reads."""

data_root = "data/regions/"
pictures = "data"  # links below data_root lead to folders below it

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="TokenizeConversations"),
    dict(type="MakeViews"),
    dict(type="PackViews"),
]
part = dict(
    type="ODVGDataset",
    data_root=data_root,
    data_prefix=dict(img=""),
    picture_folders=[pictures],
    filter_cfg=dict(filter_empty_gt=False),
    use_uniform_prompt=False,
    clean_caption=False,
    pipeline=train_pipeline,
)
stage_one = [
    dict(**part, ann_file=f"{name}.jsonl")
    for name in ("llava_558k", "visual_genome", "refcocog", "v3det_100")
]
stage_two = [
    dict(**part, ann_file=f"{name}.jsonl")
    for name in (
        "llava_instruct",
        "visual_genome_10",
        "refcocog",
        "refcocog_choose",
        "v3det_10",
        "coco_classification",
        "recapd",
    )
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="ConcatDataset", datasets=stage_one),
)
