"""What COCO 2017's annotated objects are: every box of the validation set is a question."""

data_root = "data/coco/"
annotations = "annotations/instances_val2017.json"

test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RegionClassificationDataset",
        data_root=data_root,
        ann_file=annotations,
        data_prefix=dict(img="val2017/"),
        # Both change the figure; SpatialRGPT's program has "masks" and True.
        regions="boxes",
        window=False,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="MakeViews"),
            dict(type="PackViews"),
        ],
    ),
)
test_evaluator = dict(type="CocoClassificationMetric", ann_file=data_root + annotations)
test_cfg = dict(type="TestLoop")
