"""Descriptions of RefCOCOg's regions, judged by METEOR and CIDEr (needs Java)."""

_base_ = "../question_loader.py"

captions_root = "data/coco/"
captions_file = "mdetr_annotations/finetune_refcocog_val_captions.json"

test_dataloader = dict(
    batch_size=16,
    dataset=dict(
        type="RegionCaptionDataset",
        data_root=captions_root,
        ann_file=captions_file,
        data_prefix=dict(img="train2014/"),
        task="refer",
        pipeline=_base_.question_pipeline,
    ),
)
test_evaluator = dict(type="CaptionMetric", ann_file=captions_root + captions_file)
