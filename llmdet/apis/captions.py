"""Captions of detections: what the language model says of an image and of its boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict

from llmdet.apis.read_images import ReadImages
from llmdet.apis.results import Picture, Results
from llmdet.errors import ConfigError, DataError
from llmdet.models.structures import PromptedFeatures


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


def check_inside(boxes: np.ndarray, picture: Picture) -> None:
    """Check that each of [N, 4] boxes xyxy in pixels shows a part of an image.

    Raises:
        DataError: a box lies outside the image.
    """
    width, height = picture.width, picture.height
    inside = np.clip(boxes, 0, [width, height, width, height])
    empty = (inside[:, 2:] <= inside[:, :2]).any(axis=1)
    if empty.any():
        raise DataError(
            f"The box {boxes[empty][0].tolist()} lies outside {picture}, which has {width} x "
            f"{height} pixels: give boxes in pixels of the original image."
        )


def describe(
    model: Any,
    images: ReadImages,
    found: Sequence[Results],
    features: PromptedFeatures | None,
    kinds: frozenset[str],
    generation: Mapping[str, Any],
) -> list[Results]:
    """Describe images and boxes.

    Args:
        model: LLMDet with a language model.
        images: B images as the model sees them.
        found: boxes to describe, in pixels of the original image.
        features: what the detection saw.
        kinds: any of "image" and "regions", as far as the model has captioners for them.
        generation: options of transformers' ``generate``.

    Returns:
        The same detections with captions and a description.
    """
    captioners = {"image": model.image_captioner, "regions": model.region_captioner}
    kinds = frozenset(kind for kind in kinds if captioners[kind] is not None)
    boxes = [torch.from_numpy(results.boxes) for results in found]
    samples = images.samples
    model.describe(images.inputs, samples, kinds, boxes, features=features, **generation)
    return [
        replace(
            results,
            description=sample.get("image_description") if "image" in kinds else None,
            captions=list(sample.region_descriptions) if "regions" in kinds else None,
        )
        for results, sample in zip(found, samples, strict=True)
    ]
