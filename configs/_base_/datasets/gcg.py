"""GLaMM's grounded conversations: METEOR and CIDEr (need Java), mask AP, mIoU and recall."""

_base_ = "../question_loader.py"

gcg_root = "data/grandf/"
gcg_folder = "GranDf/annotations/val_test/"
gcg_files = {split: gcg_folder + split + "_gcg_coco_caption_gt.json" for split in ("val", "test")}
gcg_part = dict(
    type="GroundedCaptionDataset",
    data_root=gcg_root,
    data_prefix=dict(img="GranDf_HA_images/val_test/"),
    pipeline=_base_.question_pipeline,
)
test_dataloader = dict(
    dataset=dict(
        type="BenchmarkSets",
        sets={split: dict(**gcg_part, ann_file=file) for split, file in gcg_files.items()},
    ),
)
test_evaluator = dict(
    type="BenchmarkEvaluator",
    metrics={
        split: dict(type="GCGMetric", ann_file=gcg_root + file, text_encoder="bert-base-uncased")
        for split, file in gcg_files.items()
    },
)
