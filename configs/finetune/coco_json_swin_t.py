"""Fine-tune Swin-T on a folder of plain COCO json, class names from the file.

    bash dist_train.sh configs/finetune/coco_json_swin_t.py 8 --amp \
        --cfg-options data_root=FOLDER load_from=tiny.pth lang_model_name=FOLDER_OF_BERT
"""

_base_ = [
    "../_base_/models/grounding_dino_swin_t.py",
    "../_base_/datasets/coco_json.py",
    "../_base_/schedules/llmdet_150k.py",
    "../_base_/finetune_runtime.py",
]

max_iters = 10_000
# With another max_iters, warm-up, step and end move in proportion.
schedule_length = max_iters

train_cfg = dict(max_iters=max_iters, val_interval=1000)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=max_iters, milestones=[8000], gamma=0.1),
]
