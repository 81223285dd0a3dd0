"""Captions of detections: what the language model says of an image and of its boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict

from llmdet.apis.results import Detections
from llmdet.errors import ConfigError

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


def given_detections(boxes: np.ndarray) -> Detections:
    """Boxes of the user in the place of detected ones."""
    count = len(boxes)
    return Detections(
        np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        np.ones(count, dtype=np.float32),
        np.arange(count),
        (GIVEN_BOX,) * count,
    )


def describe(
    model: Any,
    inputs: torch.Tensor,
    samples: Sequence[DetDataSample],
    found: Sequence[Detections],
    generation: Mapping[str, Any],
) -> list[Detections]:
    """Describe images and boxes, as far as the model has captioners for them.

    Args:
        model: LLMDet with a language model.
        inputs: [B, 3, H, W] as the model's preprocessor gives them.
        samples: of the B images.
        found: boxes to describe, in pixels of the original image.
        generation: options of transformers' ``generate``.

    Returns:
        The same detections with captions and a description.
    """
    kinds = {"image"} if model.image_captioner is not None else set()
    if model.region_captioner is not None:
        kinds.add("regions")
    boxes = [torch.from_numpy(own.bboxes) for own in found]
    model.describe(inputs, samples, kinds, boxes, **generation)
    return [
        replace(
            own,
            description=sample.get("image_description"),
            captions=tuple(sample.region_descriptions) if "regions" in kinds else None,
        )
        for own, sample in zip(found, samples, strict=True)
    ]
