"""Masks as annotations write them: COCO's polygons and run-length encodings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmdet.datasets.numbers import is_length, is_number
from llmdet.datasets.sample import Mask
from llmdet.errors import DataError

_LEAST_NUMBERS = 6  # of a polygon: three points


def mask_problem(value: Any, size: tuple[int | None, int | None]) -> str | None:
    """What is wrong with a mask, None if nothing is.

    Args:
        value: polygons [[x1, y1, x2, y2, ...], ...] in pixels, or dict(size=[height, width],
            counts=text or list of run lengths).
        size: height and width of the image, where they are known.
    """
    if isinstance(value, Mapping):
        return _encoding_problem(value, size)
    if not isinstance(value, list) or not value:
        return "must be a list of polygons or an encoded mask, dict(size, counts)"
    for polygon in value:
        numbers = polygon if isinstance(polygon, list) else ()
        if len(numbers) < _LEAST_NUMBERS or len(numbers) % 2 or not all(map(is_number, numbers)):
            return "must hold polygons of at least three points [x1, y1, x2, y2, ...]"
    return None


def _encoding_problem(value: Mapping[str, Any], size: tuple[int | None, int | None]) -> str | None:
    """What is wrong with a run-length encoding; pycocotools would crash over some of it."""
    counts, given = value.get("counts"), value.get("size")
    if not isinstance(counts, (str, list)) or not counts:
        return "must have 'counts', a text or a list of run lengths"
    if None not in size and given != list(size):
        return f"must have the 'size' {list(size)} of the image, not {given!r}"
    if not isinstance(given, list) or len(given) != 2 or not all(map(is_length, given)):
        return f"must have a 'size' of [height, width] in pixels, not {given!r}"
    if isinstance(counts, str):
        return None if counts.isascii() else "must have 'counts' in COCO's characters"
    runs = all(type(run) is int and run >= 0 for run in counts)
    if not runs or sum(counts) != given[0] * given[1]:
        return f"must have run lengths that add up to {given[0]} x {given[1]} pixels"
    return None


def mask_box(mask: Mask) -> list[float]:
    """The box around a mask, x1, y1, x2, y2 in pixels."""
    if not isinstance(mask, Mapping):
        x = [value for polygon in mask for value in polygon[0::2]]
        y = [value for polygon in mask for value in polygon[1::2]]
        return [min(x), min(y), max(x), max(y)]
    from pycocotools import mask as coco_mask

    encoded = _compressed(mask)
    x1, y1, width, height = coco_mask.toBbox(encoded).tolist()
    return [x1, y1, x1 + width, y1 + height]


def join_masks(masks: Sequence[Mask], size: tuple[int, int]) -> Mask | None:
    """One mask of all pixels of several, None where they have none.

    Args:
        masks: encodings or polygons of one image.
        size: (height, width) of the image.

    Raises:
        DataError: an encoding is of an image of another size.
    """
    from pycocotools import mask as coco_mask

    if not masks:
        return None
    encoded = coco_mask.merge([_encoded(mask, size) for mask in masks])
    if not int(coco_mask.area(encoded)):
        return None
    if len(masks) == 1:
        return masks[0]
    polygons = [mask for mask in masks if not isinstance(mask, Mapping)]
    if len(polygons) == len(masks):
        return [polygon for mask in polygons for polygon in mask]
    return {"size": list(size), "counts": encoded["counts"].decode()}


def decode_mask(mask: Mask, size: tuple[int, int]) -> np.ndarray:
    """A mask as [height, width] bool.

    Args:
        mask: an encoding, or polygons, whose parts are joined.
        size: (height, width) of the image.

    Raises:
        DataError: the encoding is of an image of another size.
    """
    from pycocotools import mask as coco_mask

    return coco_mask.decode(_encoded(mask, size)).astype(bool)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask [height, width] bool as COCO's run-length encoding, dict(size, counts as text)."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def _encoded(mask: Mask, size: tuple[int, int]) -> Any:
    """Any mask as pycocotools has it."""
    from pycocotools import mask as coco_mask

    if not isinstance(mask, Mapping):
        return coco_mask.merge(coco_mask.frPyObjects(mask, *size))
    if tuple(mask["size"]) != tuple(size):
        raise DataError(f"a mask has the size {list(mask['size'])}, but its image {list(size)}")
    return _compressed(mask)


def _compressed(mask: Mapping[str, Any]) -> Any:
    from pycocotools import mask as coco_mask

    encoded: Any = dict(mask)
    if isinstance(encoded["counts"], list):
        return coco_mask.frPyObjects(encoded, *encoded["size"])
    return encoded
