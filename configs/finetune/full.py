"""Fine-tune all weights of the quickstart's detector on a folder of plain COCO json.

    bash dist_train.sh configs/finetune/full.py 1 --cfg-options data_root=FOLDER/

FOLDER holds instances_train.json, instances_val.json and images/. What the detector could do
before is measured too, before and after. It forgets much of that: lora.py, decoder_only.py and
full_replay.py are ways that forget less.
"""

_base_ = [
    "../_base_/models/grounding_dino_quickstart.py",
    "../_base_/datasets/coco_json_tiny.py",
    "../_base_/datasets/zero_shot_toy.py",
    "../_base_/schedules/finetune_tiny.py",
    "../_base_/finetune_runtime.py",
]

load_from = "work_dirs/quickstart/latest.pth"  # of demo/quickstart.sh
