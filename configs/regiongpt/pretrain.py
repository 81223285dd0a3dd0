"""Stage one: refinement and connector learn to speak to a language model that does not change.

Written for 8 GPUs: 256 conversations a step.
"""

_base_ = [
    "../_base_/models/regiongpt_7b.py",
    "../_base_/datasets/regiongpt.py",
    "../_base_/schedules/alignment.py",
    "../_base_/default_runtime.py",
]

auto_scale_lr = dict(base_batch_size=256)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
