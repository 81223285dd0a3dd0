"""Masks of RefCOCO's, RefCOCO+'s and RefCOCOg's expressions, by the model of the paper's size."""

_base_ = [
    "../../_base_/models/glamm_7b.py",
    "../../_base_/datasets/referring_masks.py",
    "../../_base_/default_runtime.py",
]
