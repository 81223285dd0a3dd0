"""The classes of COCO's annotated objects, with SigLIP and Qwen2.5 0.5B."""

_base_ = [
    "../_base_/models/regiongpt_siglip_qwen.py",
    "../_base_/datasets/coco_classification.py",
    "../_base_/default_runtime.py",
]

model = dict(talk=dict(max_new_tokens=16))
