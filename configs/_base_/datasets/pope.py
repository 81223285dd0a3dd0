"""POPE: 3,000 questions whether an object is in a picture, in each of three settings."""

_base_ = "../question_loader.py"

data_root = "data/"
settings = ("random", "popular", "adversarial")
files = {name: "pope/coco_pope_" + name + ".json" for name in settings}

test_dataloader = dict(
    batch_size=16,
    dataset=dict(
        type="BenchmarkSets",
        sets={
            name: dict(
                type="POPEDataset",
                data_root=data_root,
                ann_file=files[name],
                data_prefix=dict(img="coco/val2014/"),
                pipeline=_base_.question_pipeline,
            )
            for name in settings
        },
    ),
)
test_evaluator = dict(
    type="BenchmarkEvaluator",
    metrics={name: dict(type="POPEMetric", ann_file=data_root + files[name]) for name in settings},
)
