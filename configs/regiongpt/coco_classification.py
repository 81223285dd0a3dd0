"""The classes of COCO's annotated objects, by the model of the paper's size."""

_base_ = [
    "../_base_/models/regiongpt_7b.py",
    "../_base_/datasets/coco_classification.py",
    "../_base_/default_runtime.py",
]

model = dict(talk=dict(max_new_tokens=16))
