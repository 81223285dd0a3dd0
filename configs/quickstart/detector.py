"""A tiny detector on the toy set, from scratch, in minutes on two CPU cores."""

_base_ = [
    "../_base_/models/grounding_dino_quickstart.py",
    "../_base_/datasets/toy.py",
    "../_base_/schedules/quickstart.py",
    "../_base_/default_runtime.py",
]

model = dict(test_cfg=_base_.test_protocol)

# Class names are what is measured, and minutes are few: no sentences.
train_dataloader = dict(
    # Loading is a thirtieth of a step on a CPU: workers would take more than they give.
    num_workers=0,
    persistent_workers=False,
    dataset=dict(datasets=[_base_.detection_part]),
)
