"""Tiny proposals on the toy set, from scratch, in minutes on two CPU cores."""

_base_ = [
    "../_base_/models/proposal_dino_quickstart.py",
    "../_base_/datasets/toy_proposals.py",
    "../_base_/schedules/quickstart.py",
    "../_base_/default_runtime.py",
]
