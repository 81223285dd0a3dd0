"""POPE: 3,000 questions whether an object is in a picture, in each of three settings."""

data_root = "data/"
settings = ("random", "popular", "adversarial")
files = {name: "pope/coco_pope_" + name + ".json" for name in settings}

test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="BenchmarkSets",
        sets={
            name: dict(
                type="POPEDataset",
                data_root=data_root,
                ann_file=files[name],
                data_prefix=dict(img="coco/val2014/"),
                pipeline=[
                    dict(type="LoadImageFromFile"),
                    dict(type="MakeViews"),
                    dict(type="PackViews"),
                ],
            )
            for name in settings
        },
    ),
)
test_evaluator = dict(
    type="BenchmarkEvaluator",
    metrics={name: dict(type="POPEMetric", ann_file=data_root + files[name]) for name in settings},
)
test_cfg = dict(type="TestLoop")
