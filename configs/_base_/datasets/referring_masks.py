"""Masks of RefCOCO's, RefCOCO+'s and RefCOCOg's expressions: every one, in free answers.

``answers="given"`` of the parts shows the right answer and reads its mask, as GLaMM's program does.
Files are written by tools/convert/data.py, see docs/regions.md.
"""

_base_ = "../question_loader.py"

res_root = "data/coco/"
res_splits = (
    *("refcoco_val", "refcoco_testA", "refcoco_testB"),
    *("refcoco+_val", "refcoco+_testA", "refcoco+_testB"),
    *("refcocog_val", "refcocog_test"),
)
res_files = {split: "masks/" + split + ".jsonl" for split in res_splits}
res_part = dict(
    type="RowQuestionDataset",
    data_root=res_root,
    data_prefix=dict(img="train2014/"),
    answers="generated",
    pipeline=_base_.question_pipeline,
)
test_dataloader = dict(
    batch_size=16,
    dataset=dict(
        type="BenchmarkSets",
        sets={split: dict(**res_part, ann_file=file) for split, file in res_files.items()},
    ),
)
test_evaluator = dict(
    type="BenchmarkEvaluator",
    metrics={
        split: dict(type="ReferringSegmentationMetric", ann_file=res_root + file)
        for split, file in res_files.items()
    },
)
