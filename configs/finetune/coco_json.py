"""Fine-tune a tiny detector on a folder of plain COCO json, class names from the file.

    bash dist_train.sh configs/finetune/coco_json.py 1 --cfg-options data_root=FOLDER

FOLDER holds instances_train.json, instances_val.json and images/. The text encoder is made by
``python -m llmdet.datasets.toy data/toy``. For the full-size detector see coco_json_swin_t.py.
"""

_base_ = [
    "../_base_/models/grounding_dino_tiny.py",
    "../_base_/datasets/coco_json_tiny.py",
    "../_base_/schedules/finetune_tiny.py",
    "../_base_/finetune_runtime.py",
]
