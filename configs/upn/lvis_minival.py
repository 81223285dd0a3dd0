"""Recall of UPN's fine proposals on LVIS minival (4,809 images)."""

_base_ = "./upn_swin_l.py"

data_root = "data/"
ann_file = "annotations/lvis_v1_minival_inserted_image_name.json"

test_pipeline = _base_.test_pipeline
test_pipeline[-2]["granularity"] = "fine"
val_dataloader = dict(
    dataset=dict(
        type="LVISV1Dataset", ann_file=ann_file, data_prefix=dict(img=""), pipeline=test_pipeline
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "coco/" + ann_file)
test_evaluator = val_evaluator
