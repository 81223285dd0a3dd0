"""Fine-tune on BCCD: blood cells in microscope images, three classes.

The folder holds the files that raccoon.py names; ``--cfg-options data_root=FOLDER`` if it lies elsewhere.
"""

_base_ = "./raccoon.py"

data_root = "data/bccd/"

train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "instances_val.json")
test_evaluator = val_evaluator
