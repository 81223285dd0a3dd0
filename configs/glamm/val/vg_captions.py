"""Descriptions of Visual Genome's regions, by the model of the paper's size."""

_base_ = [
    "../../_base_/models/glamm_7b.py",
    "../../_base_/datasets/vg_captions.py",
    "../../_base_/default_runtime.py",
]
