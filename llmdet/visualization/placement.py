"""Where the labels of a picture go: inside it, near their boxes, and off each other."""

from __future__ import annotations

import numpy as np

# What speaks against a place for a label, in units of the whole list of places.
_OVERLAP_WEIGHT = 100.0  # sharing all its pixels with other labels
_COVER_WEIGHT = 3.0  # covering another object as a whole, or half of its own
_DISTANCE_WEIGHT = 2.0  # lying its height away from its box
_SLIDES = 12


def place_labels(
    boxes: np.ndarray, sizes: np.ndarray, image_size: tuple[int, int], gap: int = 0
) -> np.ndarray:
    """Choose a rectangle for each label, the first labels having the first choice.

    A label would rather sit on top of its box at the left; then at the other corners, outside
    and inside; then slide along the left side of the box, or stand above it. Of these places the
    first is taken that hides no earlier label and covers no object, else the best compromise, in
    which a hidden label counts most.

    Args:
        boxes: [N, 4] float xyxy in pixels of the image.
        sizes: [N, 2] width and height of the labels in pixels.
        image_size: Width and height of the image in pixels.
        gap: Pixels between the outside of a box and its label: the width of the box's line.

    Returns:
        [N, 4] int64 xyxy, inside the image wherever the label is not larger than the image.
    """
    placed = np.zeros((len(boxes), 4))
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1.0)
    for index, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        candidates = _candidates(box, size, image_size, gap)
        hidden = _overlap(candidates, placed[:index]).sum(axis=1) / size.prod()
        shares = _overlap(candidates, boxes) / areas
        covered = shares.sum(axis=1) + shares[:, index]
        cost = _OVERLAP_WEIGHT * hidden + _COVER_WEIGHT * covered
        apart = np.maximum(candidates[:, :2] - box[2:], box[:2] - candidates[:, 2:])
        cost += _DISTANCE_WEIGHT * apart.clip(0).max(axis=1) / size[1]
        cost += np.arange(len(candidates)) / len(candidates)
        placed[index] = candidates[np.argmin(cost)]
    return placed.astype(np.int64)


def _candidates(
    box: np.ndarray, size: np.ndarray, image_size: tuple[int, int], gap: int
) -> np.ndarray:
    """Return [M, 4] places for a label, best first, moved into the image."""
    x1, y1, x2, y2 = box
    width, height = size
    right = x2 - width
    above, below = y1 - height + gap, y2 - gap
    corners = [
        (x1, above),
        (x1, y1),
        (right, above),
        (x1, below),
        (right, y1),
        (right, below),
        (x1, y2 - height),
        (right, y2 - height),
        (x2 - gap, y1),
        (x1 - width + gap, y1),
        (x2 - gap, y2 - height),
        (x1 - width + gap, y2 - height),
    ]
    slide = np.linspace(y1, max(y2 - height, y1), _SLIDES)[1:]
    stack = y1 - height + gap - np.arange(1, 5) * height
    corners += [(x1, y) for y in slide] + [(x1, y) for y in stack]
    left_top = np.array(corners)
    limit = np.maximum(np.array(image_size) - size, 0)
    left_top = np.clip(np.rint(left_top), 0, limit)
    return np.concatenate([left_top, left_top + size], axis=1)


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the [M, N] areas that rectangles of two xyxy lists share."""
    left_top = np.maximum(first[:, None, :2], second[None, :, :2])
    right_bottom = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.clip(right_bottom - left_top, 0, None).prod(axis=2)
