"""Images on their way into the model: prepared by a pipeline, then read by backbone and neck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.structures import DetDataSample

from llmdet.apis.results import Picture
from llmdet.models.structures import FeaturePyramid


@dataclass(frozen=True)
class PreparedImage:
    """An image as the pipeline gives it."""

    picture: Picture
    inputs: torch.Tensor  # [3, H, W]
    sample: DetDataSample


@dataclass(frozen=True)
class ReadImages:
    """B images as the model sees them, with all that no text changes."""

    pictures: tuple[Picture, ...]
    inputs: torch.Tensor  # [B, 3, H, W]
    samples: Sequence[DetDataSample]
    pyramid: FeaturePyramid
