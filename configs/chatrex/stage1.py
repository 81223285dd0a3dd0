"""Stage one: connectors and embeddings learn from captions to speak of what the towers see.

Written for 8 GPUs: 256 conversations a step.
"""

_base_ = [
    "../_base_/models/chatrex.py",
    "../_base_/datasets/objects.py",
    "../_base_/schedules/alignment.py",
    "../_base_/default_runtime.py",
]

model = dict(lmm=dict(frozen="layers", dtype="float32"))
auto_scale_lr = dict(base_batch_size=256)
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
