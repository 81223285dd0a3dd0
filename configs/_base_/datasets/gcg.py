"""GLaMM's grounded conversations: METEOR and CIDEr (need Java), mask AP, mIoU and recall."""

data_root = "data/grandf/"
pictures = "GranDf_HA_images/val_test/"
folder = "GranDf/annotations/val_test/"
files = {split: folder + split + "_gcg_coco_caption_gt.json" for split in ("val", "test")}
part = dict(
    type="GroundedCaptionDataset",
    data_root=data_root,
    data_prefix=dict(img=pictures),
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
        sets={split: dict(**part, ann_file=file) for split, file in files.items()},
    ),
)
test_evaluator = dict(
    type="BenchmarkEvaluator",
    metrics={
        split: dict(type="GCGMetric", ann_file=data_root + file, text_encoder="bert-base-uncased")
        for split, file in files.items()
    },
)
test_cfg = dict(type="TestLoop")
