"""Conversations with regions as JSONL (docs/regions.md); what each stage reads is in its config."""

data_root = "data/regions/"

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
    filter_cfg=dict(filter_empty_gt=False),
    use_uniform_prompt=False,
    clean_caption=False,
    pipeline=train_pipeline,
)
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="ConcatDataset", datasets=[]),
)
