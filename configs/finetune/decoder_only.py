"""Fine-tune decoder and heads of the quickstart's detector; all before them stays as it is.

bash dist_train.sh configs/finetune/decoder_only.py 1 --cfg-options data_root=FOLDER/
"""

_base_ = "./full.py"

model = dict(freeze_backbone=True, freeze_lm=True, tuning=dict(parts=["decoder", "bbox_head"]))
