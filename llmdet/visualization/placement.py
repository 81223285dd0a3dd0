"""Where the labels of a picture go: beside their boxes, off the objects, and off each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# What speaks against a place for a label.
_OWN_WEIGHT = 4.0  # covering its own object as a whole
_OWN_TOUCHED = 1.0  # covering a part of it at all
_OTHER_WEIGHT = 6.0  # covering another object as a whole
_DISTANCE_WEIGHT = 0.35  # lying its height away from its box
_SIDE_WEIGHT = 0.1  # for each side of the box that is tried before
_SLIDE_WEIGHT = 0.05  # lying at the far end of a side
_SLIDES = 7  # places along each side of a box
_RINGS = (0.0, 0.6, 1.5, 2.6)  # distances from the box in heights of the label
_SWEEPS = 2  # times that labels may move again when all have a place


@dataclass(frozen=True)
class Placement:
    """Rectangles of N labels."""

    places: np.ndarray  # [N, 4] int64 xyxy in pixels of the picture
    fits: np.ndarray  # [N] bool: hides no other label that fits; those that do not are left out


def place_labels(boxes: np.ndarray, sizes: np.ndarray, image_size: tuple[int, int]) -> Placement:
    """Choose a rectangle for each label, the first labels having the first choice.

    A label would rather sit on top of its box at the left; then along the other sides of the
    box, then at a distance from it, and inside only where all of that would hide another object.
    No two labels that fit overlap.

    Args:
        boxes: [N, 4] float xyxy in pixels of the picture.
        sizes: [N, 2] width and height of the labels in pixels.
        image_size: Width and height of the picture in pixels.
    """
    count = len(boxes)
    places = np.zeros((count, 4))
    fits = np.zeros(count, dtype=bool)
    options = []
    for index in range(count):
        candidates = _candidates(boxes[index], sizes[index], image_size)
        options.append((candidates, _cost(candidates, boxes, index, sizes[index, 1])))
    for _ in range(1 + _SWEEPS):
        for index, (candidates, cost) in enumerate(options):
            others = fits.copy()
            others[index] = False
            allowed = _overlap(candidates, places[others]).sum(axis=1) == 0
            fits[index] = allowed.any()
            if fits[index]:
                places[index] = candidates[np.where(allowed, cost, np.inf).argmin()]
    return Placement(places.astype(np.int64), fits)


def leader(place: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the shortest line between a label and its box, both xyxy: [2, 2] points (x, y)."""
    low = np.maximum(place[:2], box[:2])
    high = np.minimum(place[2:], box[2:])
    on_label = np.where(low <= high, (low + high) / 2, np.clip(box[:2], place[:2], place[2:]))
    return np.stack([on_label, np.clip(on_label, box[:2], box[2:])])


def _candidates(box: np.ndarray, size: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return [M, 4] places for a label moved into the image: all around the box, then inside."""
    x1, y1, x2, y2 = box
    width, height = size
    along_x = np.linspace(x1, x2 - width, _SLIDES)
    along_y = np.linspace(y1, y2 - height, _SLIDES)
    rows = []
    for ring in _RINGS:
        away = ring * height
        rows += [(x, y1 - height - away) for x in along_x]
        rows += [(x, y2 + away) for x in along_x]
        rows += [(x2 + away, y) for y in along_y]
        rows += [(x1 - width - away, y) for y in along_y]
    rows += [(x, y) for y in (y1, y2 - height) for x in (x1, x2 - width)]
    left_top = np.rint(np.array(rows))
    left_top = np.clip(left_top, 0, np.maximum(np.array(image_size) - size, 0))
    return np.concatenate([left_top, left_top + size], axis=1)


def _cost(candidates: np.ndarray, boxes: np.ndarray, index: int, height: float) -> np.ndarray:
    """Return what speaks against each of [M, 4] places of the label of one box: [M]."""
    box = boxes[index]
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1.0)
    shares = _overlap(candidates, boxes) / areas
    own = shares[:, index]
    cost = _OTHER_WEIGHT * (shares.sum(axis=1) - own)
    inside = _overlap(candidates, box[None])[:, 0] / (candidates[0, 2:] - candidates[0, :2]).prod()
    cost += _OWN_WEIGHT * own + _OWN_TOUCHED * (inside > 0.3)
    apart = np.maximum(candidates[:, :2] - box[2:], box[:2] - candidates[:, 2:])
    cost += _DISTANCE_WEIGHT * apart.clip(0).max(axis=1) / height
    number = np.arange(len(candidates))
    cost += _SIDE_WEIGHT * (number // _SLIDES % 4)
    return cost + _SLIDE_WEIGHT * (number % _SLIDES) / _SLIDES


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the [M, N] areas that rectangles of two xyxy lists share."""
    left_top = np.maximum(first[:, None, :2], second[None, :, :2])
    right_bottom = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.clip(right_bottom - left_top, 0, None).prod(axis=2)
