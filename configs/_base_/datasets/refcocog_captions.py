"""Descriptions of RefCOCOg's regions, judged by METEOR and CIDEr (needs Java)."""

data_root = "data/coco/"
captions = "mdetr_annotations/finetune_refcocog_val_captions.json"

test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RegionCaptionDataset",
        data_root=data_root,
        ann_file=captions,
        data_prefix=dict(img="train2014/"),
        task="refer",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="MakeViews"),
            dict(type="PackViews"),
        ],
    ),
)
test_evaluator = dict(type="CaptionMetric", ann_file=data_root + captions)
test_cfg = dict(type="TestLoop")
