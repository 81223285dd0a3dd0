"""Masks of RefCOCO's, RefCOCO+'s and RefCOCOg's expressions, by GLaMM as released, asked as its program asks."""

_base_ = [
    "../infer_7b.py",
    "../../_base_/datasets/referring_masks.py",
    "../../_base_/default_runtime.py",
]

introduction = "The <image> provides an overview of the picture.\n"
test_dataloader = dict(
    dataset=dict(sets={split: dict(introduction=introduction) for split in _base_.res_files})
)
