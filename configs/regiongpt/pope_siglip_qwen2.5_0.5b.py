"""Does it see objects that are not there? With SigLIP and Qwen2.5 0.5B."""

_base_ = [
    "../_base_/models/regiongpt_siglip_qwen.py",
    "../_base_/datasets/pope.py",
    "../_base_/default_runtime.py",
]

model = dict(talk=dict(max_new_tokens=16))
