"""Conversations whose words have masks as JSONL (docs/glamm.md), and about regions and pictures.

Batches hold one task each, and so do the batches of a step. What a config learns is named by
``datasets`` and ``tasks``, one for each of them; ``shares`` say how often each comes.
"""

data_root = "data/glamm/"
picture_folders = []  # where links below data_root lead to

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
    picture_folders=picture_folders,
    filter_cfg=dict(filter_empty_gt=False),
    use_uniform_prompt=False,
    clean_caption=False,
    pipeline=train_pipeline,
)
grand = [
    dict(**part, ann_file=f"{name}.jsonl")
    for name in ("grand_gcg", "grand_segment", "grand_describe")
]
semantic = [
    dict(**part, ann_file=f"{name}.jsonl")
    for name in ("ade20k", "coco_stuff", "pascal_part", "paco_lvis", "mapillary")
]
expressions = [
    dict(**part, ann_file=f"{name}_segment.jsonl")
    for name in ("refcoco", "refcoco+", "refcocog", "refclef")
]
grounded_captions = [
    dict(**part, ann_file=f"{name}.jsonl")
    for name in ("refcocog_gcg", "psg_gcg", "flickr30k_gcg", "grandf_gcg")
]
region_captions = [
    dict(**part, ann_file=f"{name}_caption.jsonl")
    for name in ("refcoco", "refcoco+", "refcocog", "visual_genome", "flickr30k")
]
captions = [dict(**part, ann_file=f"{name}.jsonl") for name in ("coco_describe", "llava_instruct")]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="ShareSampler", shares=[1, 1, 1]),
    batch_sampler=dict(type="TaskBatchSampler", tasks=["segment", "segment", "image"], in_a_row=10),
    dataset=dict(type="ConcatDataset", datasets=grand),
)
