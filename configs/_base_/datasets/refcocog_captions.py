"""Descriptions of RefCOCOg's regions, judged by METEOR and CIDEr (needs Java)."""

captions_root = "data/coco/"
captions_file = "mdetr_annotations/finetune_refcocog_val_captions.json"

test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RegionCaptionDataset",
        data_root=captions_root,
        ann_file=captions_file,
        data_prefix=dict(img="train2014/"),
        task="refer",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="MakeViews"),
            dict(type="PackViews"),
        ],
    ),
)
test_evaluator = dict(type="CaptionMetric", ann_file=captions_root + captions_file)
test_cfg = dict(type="TestLoop")
