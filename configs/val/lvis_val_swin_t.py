"""Fixed AP of Swin-T on LVIS v1 val (19,809 images), zero-shot, with 40 classes a prompt as published."""

_base_ = "./lvis_minival_swin_t.py"

lvis_ann_file = "annotations/lvis_v1_val.json"

val_dataloader = dict(dataset=dict(ann_file=lvis_ann_file))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=_base_.lvis_root + lvis_ann_file)
test_evaluator = val_evaluator
