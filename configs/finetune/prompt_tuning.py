"""Learn an embedding for each class of a folder of plain COCO json; nothing else of the detector changes.

    bash dist_train.sh configs/finetune/prompt_tuning.py 1 --cfg-options data_root=FOLDER/

What the detector finds under other names stays the same to the last bit. Checkpoints hold the
embeddings alone, some kilobytes, and say which weights they belong to.
"""

_base_ = "./full.py"

model = dict(
    freeze_backbone=True,
    freeze_lm=True,
    use_dn=False,
    learned_classes="train_dataloader",  # the names of its classes
    tuning=dict(parts=["learned_classes"]),
)
load_missing = ["learned_classes"]  # they begin as their names

optim_wrapper = dict(optimizer=dict(lr=0.05, weight_decay=0))
