"""Captions of detections: what the language model says of an image and of its boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict

from llmdet.apis.inputs import InputImage
from llmdet.apis.results import ImageDetections
from llmdet.errors import ConfigError, DataError
from llmdet.models.structures import PromptedFeatures

#: Name of boxes that the user gave, in the place of a class.
GIVEN_BOX = "region"


def keep_language_model(settings: ConfigDict) -> None:
    """Prepare a config's model for captions; the checkpoint holds the trained connectors.

    Raises:
        ConfigError: The config has no language model.
    """
    if settings.get("lmm") is None:
        raise ConfigError(
            "Captions need a model with a language model, and the config's model.lmm is None or "
            "missing; take a config such as configs/grounding_dino_swin_t.py."
        )
    if settings.get("connector") is not None:
        settings.connector = None


def given_detections(boxes: np.ndarray) -> ImageDetections:
    """Boxes of the user in the place of detected ones."""
    count = len(boxes)
    names = (GIVEN_BOX,) * count
    return ImageDetections(boxes.reshape(-1, 4).astype(np.float32), None, np.arange(count), names)


def check_inside(boxes: np.ndarray, image: InputImage, shape: Sequence[int]) -> None:
    """Check that each of [N, 4] boxes xyxy in pixels shows a part of an image [H, W, 3].

    Raises:
        DataError: a box lies outside the image.
    """
    height, width = shape[:2]
    inside = np.clip(boxes, 0, [width, height, width, height])
    empty = (inside[:, 2:] <= inside[:, :2]).any(axis=1)
    if empty.any():
        raise DataError(
            f"The box {boxes[empty][0].tolist()} lies outside {image}, which has {width} x "
            f"{height} pixels: give boxes in pixels of the original image."
        )


def describe(
    model: Any,
    inputs: torch.Tensor,
    samples: Sequence[DetDataSample],
    found: Sequence[ImageDetections],
    features: PromptedFeatures | None,
    generation: Mapping[str, Any],
) -> list[ImageDetections]:
    """Describe images and boxes, as far as the model has captioners for them.

    Args:
        model: LLMDet with a language model.
        inputs: [B, 3, H, W] as the model's preprocessor gives them.
        samples: of the B images.
        found: boxes to describe, in pixels of the original image.
        features: what the detection saw.
        generation: options of transformers' ``generate``.

    Returns:
        The same detections with captions and a description.
    """
    kinds = {"image"} if model.image_captioner is not None else set()
    if model.region_captioner is not None:
        kinds.add("regions")
    boxes = [torch.from_numpy(detections.bboxes) for detections in found]
    model.describe(inputs, samples, kinds, boxes, features=features, **generation)
    return [
        replace(
            detections,
            description=sample.get("image_description"),
            captions=tuple(sample.region_descriptions) if "regions" in kinds else None,
        )
        for detections, sample in zip(found, samples, strict=True)
    ]
