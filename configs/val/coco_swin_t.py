"""COCO AP on val2017. Zero-shot it is not: GroundingCap-1M contains COCO images and classes."""

_base_ = "../grounding_dino_swin_t.py"

data_root = "data/coco/"
ann_file = "annotations/instances_val2017.json"

model = dict(lmm=None, test_cfg=dict(limit_per="image", chunked_size=-1))
val_dataloader = dict(
    dataset=dict(
        type="CocoDataset",
        data_root=data_root,
        ann_file=ann_file,
        data_prefix=dict(img="val2017/"),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type="CocoMetric", ann_file=data_root + ann_file)
test_evaluator = val_evaluator
