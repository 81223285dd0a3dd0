"""Transforms of the pipelines that mmdet does not have."""

from llmdet.datasets.transforms.conversations import TokenizeConversations
from llmdet.datasets.transforms.loading import LoadImageFromFile
from llmdet.datasets.transforms.packing import PackGroundingInputs
from llmdet.datasets.transforms.text_sampling import RandomSamplingNegPos, RandomSamplingNegPos2

__all__ = [
    "LoadImageFromFile",
    "PackGroundingInputs",
    "RandomSamplingNegPos",
    "RandomSamplingNegPos2",
    "TokenizeConversations",
]
