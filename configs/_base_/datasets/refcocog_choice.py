"""RefCOCOg by choice among the boxes of a detector.

Candidates are a prediction file, below ``data_root``, of a test on the same expressions, such as
``bash dist_test.sh configs/val/refexp_swin_t.py ... --out`` writes. With ``add_truth`` the true
box is offered too where none of them overlaps it by half, as for the published figures.
"""

_base_ = "../question_loader.py"

data_root = "data/coco/"
splits = ("val", "test")
part = dict(
    type="RegionChoiceDataset",
    data_root=data_root,
    data_prefix=dict(img="train2014/"),
    candidates_of="expression",
    max_candidates=20,
    add_truth=True,
    pipeline=_base_.question_pipeline,
)
files = {split: "mdetr_annotations/finetune_refcocog_" + split + ".json" for split in splits}
test_dataloader = dict(
    batch_size=16,
    dataset=dict(
        type="BenchmarkSets",
        sets={
            split: dict(
                **part,
                ann_file=files[split],
                candidates="candidates/refcocog_" + split + ".jsonl",
            )
            for split in splits
        },
    ),
)
test_evaluator = dict(
    type="BenchmarkEvaluator",
    metrics={
        split: dict(type="RegionChoiceMetric", ann_file=data_root + files[split])
        for split in splits
    },
)
