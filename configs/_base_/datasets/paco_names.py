"""What PACO's annotated objects and parts are, in any words; see ``lvis_names.py``."""

_base_ = "./lvis_names.py"

annotations = "annotations/paco_lvis_v1_val.json"
test_dataloader = dict(dataset=dict(ann_file=annotations))
test_evaluator = dict(ann_file=_base_.data_root + annotations)
