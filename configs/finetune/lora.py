"""Fine-tune low-rank maps in the quickstart's detector, whose own weights stay as they are.

    bash dist_train.sh configs/finetune/lora.py 1 --cfg-options data_root=FOLDER/
    python tools/convert/checkpoint.py work_dirs/lora/iter_400.pth merged.pth \
        --lora merge --config configs/finetune/lora.py

The merged weights fit full.py, and every config of the same model without tuning.
"""

_base_ = "./full.py"

model = dict(
    freeze_backbone=True,
    freeze_lm=True,
    tuning=dict(parts=["encoder", "decoder", "bbox_head"], lora=dict(r=8, alpha=16)),
)
load_missing = ["lora"]  # it begins at zero
optim_wrapper = dict(optimizer=dict(lr=2e-3))  # fewer numbers take longer steps
