"""Transforms of the pipelines that mmdet does not have."""

from llmdet.datasets.transforms.text_sampling import RandomSamplingNegPos, RandomSamplingNegPos2

__all__ = ["RandomSamplingNegPos", "RandomSamplingNegPos2"]
