"""A folder with COCO json files whose categories become the classes.

DATA_ROOT/{instances_train.json, instances_val.json, images/}; set the folder by
``--cfg-options data_root=DATA_ROOT``.
"""

_base_ = "./coco.py"

data_root = "data/coco_json/"

train_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file="instances_train.json", data_prefix=dict(img="images/")
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file="instances_val.json", data_prefix=dict(img="images/")
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "instances_val.json")
test_evaluator = val_evaluator
