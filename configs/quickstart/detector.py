"""A tiny detector on the toy set, from scratch, in minutes on two CPU cores."""

_base_ = [
    "../_base_/models/grounding_dino_tiny.py",
    "../_base_/datasets/toy.py",
    "../_base_/schedules/quickstart.py",
    "../_base_/default_runtime.py",
]

# Class names are what is measured, and minutes are few: no sentences.
train_dataloader = dict(dataset=dict(datasets=[_base_.detection_part]))
