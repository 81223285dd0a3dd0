"""Does it see objects that are not there? By the model of the paper's size."""

_base_ = [
    "../_base_/models/regiongpt_7b.py",
    "../_base_/datasets/pope.py",
    "../_base_/default_runtime.py",
]

model = dict(talk=dict(max_new_tokens=16))
