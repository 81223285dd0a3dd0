"""Masks of RefCOCO's, RefCOCO+'s and RefCOCOg's expressions: every one, in free answers.

``answers="given"`` of the parts shows the right answer and reads its mask, as GLaMM's program does.
Files are written by tools/convert/data.py, see docs/regions.md.
"""

data_root = "data/coco/"
splits = (
    *("refcoco_val", "refcoco_testA", "refcoco_testB"),
    *("refcoco+_val", "refcoco+_testA", "refcoco+_testB"),
    *("refcocog_val", "refcocog_test"),
)
files = {split: "masks/" + split + ".jsonl" for split in splits}
part = dict(
    type="RowQuestionDataset",
    data_root=data_root,
    data_prefix=dict(img="train2014/"),
    answers="generated",
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="MakeViews"),
        dict(type="PackViews"),
    ],
)
test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="BenchmarkSets",
        sets={split: dict(**part, ann_file=file) for split, file in files.items()},
    ),
)
test_evaluator = dict(
    type="BenchmarkEvaluator",
    metrics={
        split: dict(type="ReferringSegmentationMetric", ann_file=data_root + file)
        for split, file in files.items()
    },
)
test_cfg = dict(type="TestLoop")
