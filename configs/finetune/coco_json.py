"""Fine-tune a tiny detector on a folder of plain COCO json, class names from the file.

    bash dist_train.sh configs/finetune/coco_json.py 1 --cfg-options data_root=FOLDER

FOLDER holds instances_train.json, instances_val.json and images/. The text encoder is made by
``python -m llmdet.datasets.toy data/toy; python -m llmdet.testing.toy_models data/toy``. For the full-size detector see
coco_json_swin_t.py.
"""

_base_ = [
    "../_base_/models/grounding_dino_tiny.py",
    "../_base_/datasets/coco_json.py",
    "../_base_/schedules/finetune_tiny.py",
    "../_base_/default_runtime.py",
]

tokenizer_name = "data/toy/bert"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomChoiceResize", scales=[(144, 256), (160, 288), (176, 320)], keep_ratio=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type="RandomSamplingNegPos", tokenizer_name=tokenizer_name, max_tokens=256),
    dict(type="PackGroundingInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="FixScaleResize", scale=(160, 288), keep_ratio=True, backend="pillow"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackGroundingInputs"),
]

train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
