"""Descriptions of RefCOCOg's regions, by GLaMM as released, asked as its program asks."""

_base_ = [
    "../infer_7b.py",
    "../../_base_/datasets/refcocog_captions.py",
    "../../_base_/default_runtime.py",
]

introduction = "The <image> provides an overview of the picture.\n"
question = "Can you provide me with a detailed description of the region in the picture marked by <region>?"
test_dataloader = dict(dataset=dict(introduction=introduction, question=question))
