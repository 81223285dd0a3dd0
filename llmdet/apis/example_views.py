"""Changed copies of an example image, so that a class of few examples is not one place and size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmdet.apis.images import Source
from llmdet.datasets.pictures import read_picture

_TRIES = 10
_SMALLEST_CUT = 0.5  # sides of a cut, in sides of the image
_LARGEST_CANVAS = 1.6  # sides of a canvas around the image, in sides of the image
_WHOLE, _GONE = 0.75, 0.05  # parts of a box in a cut that make it a box there, and none


@dataclass(frozen=True)
class Copy:
    """An image and its boxes after a change."""

    image: Source
    boxes: np.ndarray  # [N, 4] float32 xyxy in pixels of this image


def changed_copies(
    image: Source, boxes: np.ndarray, count: int, rng: np.random.Generator
) -> Iterator[Copy]:
    """The image itself, then mirrored, cut and put on a larger canvas, by turns.

    Sizes change in proportion, so that the model sees objects larger and smaller.

    Args:
        image: a file or an array RGB.
        boxes: [N, 4] xyxy in its pixels.
        count: how many, the image itself included.
        rng: source of all randomness.
    """
    yield Copy(image, boxes)
    if count == 1:
        return
    pixels = np.asarray(image if isinstance(image, np.ndarray) else read_picture(image))
    for index in range(1, count):
        copy = Copy(pixels, boxes)
        if index % 3 == 2:
            copy = _cut(copy, rng)
        elif index % 3 == 0:
            copy = _on_canvas(copy, rng)
        yield _mirrored(copy) if index % 2 else copy


def _mirrored(copy: Copy) -> Copy:
    assert isinstance(copy.image, np.ndarray)
    width = copy.image.shape[1]
    boxes = copy.boxes.copy()
    boxes[:, [0, 2]] = width - copy.boxes[:, [2, 0]]
    return Copy(np.ascontiguousarray(copy.image[:, ::-1]), boxes)


def _cut(copy: Copy, rng: np.random.Generator) -> Copy:
    """A part of the image in which every box is nearly whole or not at all; else the image."""
    assert isinstance(copy.image, np.ndarray)
    height, width = copy.image.shape[:2]
    areas = (copy.boxes[:, 2:] - copy.boxes[:, :2]).prod(1)
    for _ in range(_TRIES):
        part = rng.uniform(_SMALLEST_CUT, 0.95)
        size = np.maximum(np.round(np.array([width, height]) * part), 1).astype(int)
        corner = (rng.random(2) * (np.array([width, height]) - size)).astype(int)
        low, high = np.tile(corner, 2), np.tile(corner + size, 2)
        boxes = np.clip(copy.boxes, low, high) - low
        visible = (boxes[:, 2:] - boxes[:, :2]).prod(1) / areas
        there = visible >= _WHOLE
        if there.any() == (len(boxes) > 0) and (there | (visible <= _GONE)).all():
            rows, columns = slice(corner[1], high[1]), slice(corner[0], high[0])
            return Copy(copy.image[rows, columns], boxes[there].astype(np.float32))
    return copy


def _on_canvas(copy: Copy, rng: np.random.Generator) -> Copy:
    """The image somewhere on a larger canvas of its mean colour."""
    assert isinstance(copy.image, np.ndarray)
    height, width = copy.image.shape[:2]
    scale = rng.uniform(1.1, _LARGEST_CANVAS)
    size = np.round(np.array([width, height]) * scale).astype(int)
    x, y = (rng.random(2) * (size - [width, height])).astype(int)
    mean = copy.image.reshape(-1, 3).mean(0)
    canvas = np.empty((size[1], size[0], 3), np.uint8)
    canvas[:] = mean.round().astype(np.uint8)
    canvas[y : y + height, x : x + width] = copy.image
    return Copy(canvas, (copy.boxes + np.array([x, y, x, y])).astype(np.float32))
