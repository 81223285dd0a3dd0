"""Stage one with SigLIP and Qwen2.5 0.5B, for one GPU: 8 times 32 conversations a step."""

_base_ = [
    "../_base_/models/regiongpt_siglip_qwen.py",
    "../_base_/datasets/regiongpt.py",
    "../_base_/schedules/alignment.py",
    "../_base_/default_runtime.py",
]

optim_wrapper = dict(accumulative_counts=8)
auto_scale_lr = dict(base_batch_size=256)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
