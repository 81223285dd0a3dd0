"""Fine-tune on Raccoon: 200 photographs, one class.

The folder holds odvg_od_train.jsonl, odvg_label_map.json, instances_val.json and images/; name it
with ``--cfg-options data_root=FOLDER`` if it lies elsewhere. The text encoder of the tiny detector
is made by ``python -m llmdet.datasets.toy data/toy``.
"""

_base_ = [
    "../_base_/models/grounding_dino_tiny.py",
    "../_base_/datasets/jsonl_finetune.py",
    "../_base_/schedules/finetune_tiny.py",
    "../_base_/finetune_runtime.py",
]

data_root = "data/raccoon/"

train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "instances_val.json")
test_evaluator = val_evaluator
