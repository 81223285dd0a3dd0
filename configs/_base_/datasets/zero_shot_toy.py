"""What fine-tuning of the quickstart's detector must not forget: the toy set's own classes.

``python -m llmdet.datasets.toy data/toy`` makes it; another folder by
``--cfg-options zero_shot_root=FOLDER/``.
"""

zero_shot_root = "data/toy/"
zero_shot_file = "annotations/val_unseen_coco.json"  # all 48 classes, 8 of them never trained

zero_shot_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=zero_shot_root,
        ann_file=zero_shot_file,
        data_prefix=dict(img="images/"),
        test_mode=True,
        return_classes=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="FixScaleResize", scale=(128, 128), keep_ratio=True, backend="pillow"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackGroundingInputs"),
        ],
    ),
)
zero_shot_evaluator = dict(
    type="CocoMetric", ann_file=zero_shot_root + zero_shot_file, metric="bbox"
)
custom_hooks = [dict(type="ForgettingHook")]
