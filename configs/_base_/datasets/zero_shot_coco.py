"""What fine-tuning must not forget: COCO 2017's validation set, as MM-Grounding-DINO reports it.

A smaller set of your own, with classes that you go on using, is as good: name it here by
``--cfg-options zero_shot_root=FOLDER/ zero_shot_file=instances.json zero_shot_images=images/``.
"""

zero_shot_root = "data/coco/"
zero_shot_file = "annotations/instances_val2017.json"
zero_shot_images = "val2017/"

zero_shot_dataloader = dict(
    batch_size=1,
    num_workers=2,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        data_root=zero_shot_root,
        ann_file=zero_shot_file,
        data_prefix=dict(img=zero_shot_images),
        test_mode=True,
        return_classes=True,
        pipeline=[
            dict(type="LoadImageFromFile", imdecode_backend="pillow"),
            dict(type="FixScaleResize", scale=(800, 1333), keep_ratio=True, backend="pillow"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackGroundingInputs"),
        ],
    ),
)
zero_shot_evaluator = dict(
    type="CocoMetric", ann_file=zero_shot_root + zero_shot_file, metric="bbox"
)
custom_hooks = [dict(type="ForgettingHook")]
