"""Fine-tune on BCCD: blood cells in microscope images, three classes; the folder and the text encoder are as in raccoon.py."""

_base_ = "./raccoon.py"

data_root = "data/bccd/"

train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "instances_val.json")
test_evaluator = val_evaluator
