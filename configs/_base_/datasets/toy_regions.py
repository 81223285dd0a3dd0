"""Questions about regions of the toy set: ``python -m llmdet.datasets.toy data/toy --regions``."""

data_root = "data/toy/"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="TokenizeConversations"),
    dict(type="MakeViews"),
    dict(type="PackViews"),
]
train_dataloader = dict(
    batch_size=16,
    # Loading is a tenth of a step on a CPU: workers would take more than they give.
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="ODVGDataset",
        data_root=data_root,
        data_prefix=dict(img="images/"),
        ann_file="annotations/train_regions.jsonl",
        filter_cfg=dict(filter_empty_gt=False),
        use_uniform_prompt=False,
        clean_caption=False,
        pipeline=train_pipeline,
    ),
)
