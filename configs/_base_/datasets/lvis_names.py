"""What LVIS's annotated objects are, in any words.

``text_encoder`` is a sentence encoder, for semantic similarity; None compares words alone.
"""

data_root = "data/coco/"
annotations = "annotations/lvis_v1_val.json"

test_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RegionNamingDataset",
        data_root=data_root,
        ann_file=annotations,
        data_prefix=dict(img=""),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="MakeViews"),
            dict(type="PackViews"),
        ],
    ),
)
test_evaluator = dict(
    type="RegionClassificationMetric",
    ann_file=data_root + annotations,
    text_encoder="checkpoints/all-MiniLM-L6-v2",
)
test_cfg = dict(type="TestLoop")
