"""A folder with detection JSONL for training and COCO json for evaluation, at sizes for two cores.

DATA_ROOT/{odvg_od_train.jsonl, odvg_label_map.json, instances_val.json, images/}. The classes of
both files have the same names.
"""

_base_ = "./coco_json_tiny.py"

data_root = "data/finetune/"

train_dataloader = dict(
    dataset=dict(
        type="ODVGDataset",
        data_root=data_root,
        ann_file="odvg_od_train.jsonl",
        label_map_file="odvg_label_map.json",
    )
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "instances_val.json")
test_evaluator = val_evaluator
