"""GLaMM's grounded conversations: METEOR and CIDEr (need Java), mask AP, mIoU and recall."""

gcg_root = "data/grandf/"
gcg_folder = "GranDf/annotations/val_test/"
gcg_files = {split: gcg_folder + split + "_gcg_coco_caption_gt.json" for split in ("val", "test")}
gcg_part = dict(
    type="GroundedCaptionDataset",
    data_root=gcg_root,
    data_prefix=dict(img="GranDf_HA_images/val_test/"),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="MakeViews"),
        dict(type="PackViews"),
    ],
)
test_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
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
test_cfg = dict(type="TestLoop")
