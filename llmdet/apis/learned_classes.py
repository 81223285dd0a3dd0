"""Classes from examples: images with boxes in, a class of a detector out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from llmdet.apis.captions import check_inside
from llmdet.apis.class_names import config_class_names
from llmdet.apis.example_views import changed_copies
from llmdet.apis.images import ImageSource, Source, expand, is_single
from llmdet.apis.read_images import ReadImages
from llmdet.apis.reading import checked_boxes
from llmdet.errors import ConfigError, DataError
from llmdet.models.detectors.few_shot import (
    ExampleView,
    LearningSettings,
    learn_class,
    text_features,
)
from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.prompts.class_names import class_key, clean_class_name, clean_class_names

logger = logging.getLogger(__name__)

#: An image, and the boxes [N, 4] xyxy in its pixels of the objects of the class that are in it.
Example = tuple[ImageSource, Any]
Look = Callable[[Source], ReadImages]

_FEWEST_VIEWS = 16  # changed copies make up for examples
_FORM = (
    "examples is a list of pairs, an image and the boxes [[x1, y1, x2, y2], ...] of the class in "
    "it, in pixels; [] for an image without."
)


@dataclass(frozen=True)
class LearnedClass:
    """What came of learning a class."""

    name: str
    examples: int
    boxes: int
    losses: tuple[float, ...]  # of each step
    seconds: float


def learn_from_examples(
    model: GroundingDINO,
    config: Mapping[str, Any],
    look: Look,
    name: str,
    examples: Iterable[Example],
    description: str | None,
    others: Sequence[str] | None,
    settings: LearningSettings,
) -> LearnedClass:
    """Learn a class; see :meth:`llmdet.Detector.add_class`.

    Args:
        model, config: of the detector.
        look: runs what no text changes on one image.
        name, examples, description, others, settings: as there.
    """
    start = time.perf_counter()
    (cleaned,) = clean_class_names([name])
    given = _read_examples(cleaned, examples)
    if others is None:
        others = _classes_of(config)
    views = list(example_views(look, given, settings.seed))
    losses = learn_class(
        model,
        cleaned,
        views,
        _beside(cleaned, [*others, *model.learned_classes.names]),
        settings,
        None if description is None else _towards(model, cleaned, description),
    )
    learned = LearnedClass(
        name=cleaned,
        examples=len(given),
        boxes=sum(len(boxes) for _, boxes in given),
        losses=tuple(losses),
        seconds=time.perf_counter() - start,
    )
    logger.info(
        "learned %r from %d images with %d boxes in %.0f s: loss %.2f to %.2f",
        cleaned,
        learned.examples,
        learned.boxes,
        learned.seconds,
        np.mean(losses[:5]),
        np.mean(losses[-5:]),
    )
    return learned


def _read_examples(name: str, examples: Iterable[Example]) -> list[tuple[Source, np.ndarray]]:
    if isinstance(examples, (str, bytes, dict)) or not isinstance(examples, Iterable):
        raise ConfigError(_FORM)
    given = []
    for entry in examples:
        if not isinstance(entry, (tuple, list)) or len(entry) != 2 or not is_single(entry[0]):
            raise ConfigError(_FORM)
        (source,) = expand(entry[0])
        boxes = np.zeros((0, 4), np.float32) if len(entry[1]) == 0 else checked_boxes(entry[1])
        given.append((source, boxes))
    if not any(len(boxes) for _, boxes in given):
        raise ConfigError(f"No example of {name!r} has a box: {_FORM}")
    return given


def _classes_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that a config was written for, where it says so."""
    try:
        return config_class_names(config)
    except (ConfigError, DataError):
        return ()


def _beside(name: str, others: Sequence[str]) -> list[str]:
    """Different names that have a word, without ``name``."""
    keyed = {class_key(other): clean_class_name(other) for other in others}
    return [other for key, other in keyed.items() if key and key != class_key(name)]


def example_views(
    look: Look, given: Sequence[tuple[Source, np.ndarray]], seed: int
) -> Iterator[ExampleView]:
    """Images and changed copies of them, through the backbone, which runs once for each.

    Args:
        look: runs what no text changes on one image.
        given: images, and the boxes [N, 4] xyxy in pixels of each.
        seed: of the changes.
    """
    rng = np.random.default_rng(seed)
    each = max(2, math.ceil(_FEWEST_VIEWS / len(given)))
    for source, boxes in given:
        for number, copy in enumerate(changed_copies(source, boxes, each, rng)):
            read = look(copy.image)
            if number == 0:
                check_inside(boxes, read.pictures[0])
            width, height = read.samples[0].scale_factor
            scale = np.array([width, height, width, height], np.float32)
            shape = read.samples[0].img_shape
            size = (int(shape[0]), int(shape[1]))
            limits = np.array([size[1], size[0]] * 2, np.float32)
            yield ExampleView(
                read.pyramid, torch.from_numpy((copy.boxes * scale).clip(0, limits)), size
            )


def _towards(model: GroundingDINO, name: str, description: str) -> torch.Tensor:
    """The offset [C] that brings the mean feature of a name to that of a description."""
    there, here = text_features(model, clean_class_name(description)), text_features(model, name)
    return there.mean(0) - here.mean(0)
