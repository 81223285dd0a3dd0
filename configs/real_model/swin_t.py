"""Real-Model with Swin-T: a detector of whole sentences, trained on Real-Data.

bash dist_train.sh configs/real_model/swin_t.py 16
"""

_base_ = [
    "../_base_/models/grounding_dino_swin_t.py",
    "../_base_/models/long_text.py",
    "../_base_/datasets/real_data.py",
    "../_base_/datasets/omnilabel_coco.py",
    "../_base_/schedules/real_model.py",
    "../_base_/default_runtime.py",
]

model = dict(
    language_model=_base_.long_text,
    test_cfg=dict(chunked_size=1),  # one description a prompt
)
load_from = "checkpoints/mm_grounding_dino_swin_t.pth"
default_hooks = dict(
    checkpoint=dict(interval="validation", save_best="omnilabel/AP descr", rule="greater")
)
