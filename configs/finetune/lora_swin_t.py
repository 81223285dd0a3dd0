"""Fine-tune low-rank maps in Swin-T on a folder of plain COCO json, and measure COCO as well.

    bash dist_train.sh configs/finetune/lora_swin_t.py 8 --amp \
        --cfg-options data_root=FOLDER/ load_from=tiny.pth lang_model_name=FOLDER_OF_BERT
"""

_base_ = ["./coco_json_swin_t.py", "../_base_/datasets/zero_shot_coco.py"]

model = dict(
    freeze_backbone=True,
    freeze_lm=True,
    tuning=dict(parts=["encoder", "decoder", "bbox_head"], lora=dict(r=16, alpha=32)),
)
load_missing = ["lora"]  # it begins at zero
optim_wrapper = dict(optimizer=dict(lr=2e-4))
