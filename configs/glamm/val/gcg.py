"""GLaMM's grounded conversations, by the model of the paper's size."""

_base_ = [
    "../../_base_/models/glamm_7b.py",
    "../../_base_/datasets/gcg.py",
    "../../_base_/default_runtime.py",
]
