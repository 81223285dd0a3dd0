"""The ways in which an object is shown to a model that describes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum

from PIL import Image, ImageDraw

from llmdet.errors import DataError

HIGHLIGHT_COLOUR = (255, 0, 0)
_EXTENSION = 2.0  # of the box's sides, in an extended crop
_LINE_SHARE = 0.01  # of the picture's shorter side, in a highlight


class ImageEdit(str, Enum):
    """What is made of a picture; the value is its name in a plan (Real-LOD, section 3)."""

    CROP = "object crop"
    EXTENDED_CROP = "extended object crop"
    HIGHLIGHT = "object highlight"


def edited_pictures(
    image: Image.Image, boxes: Sequence[Sequence[float]], edit: ImageEdit
) -> tuple[Image.Image, ...]:
    """Show objects of a picture; the picture itself is left as it is.

    Args:
        image: RGB.
        boxes: [N, 4] xyxy of the N objects, in pixels of the image.
        edit: ``CROP``: what is in a box. ``EXTENDED_CROP``: the same around a box with sides
            twice as long, cut at the border of the picture. ``HIGHLIGHT``: the whole picture with
            a red line around every box, one hundredth of the shorter side wide.

    Returns:
        One picture for each box, of a highlight one for all of them.

    Raises:
        DataError: a box lies outside the picture.
    """
    for box in boxes:
        _pixels(image, box)
    if edit is ImageEdit.HIGHLIGHT:
        return (_highlighted(image, boxes),)
    scale = _EXTENSION if edit is ImageEdit.EXTENDED_CROP else 1.0
    return tuple(image.crop(_pixels(image, _scaled(box, scale))) for box in boxes)


def _highlighted(image: Image.Image, boxes: Sequence[Sequence[float]]) -> Image.Image:
    shown = image.copy()
    draw = ImageDraw.Draw(shown)
    line = max(1, int(_LINE_SHARE * min(image.size)))
    for box in boxes:
        left, top, right, bottom = _pixels(image, box)
        # Around the object and not on it, but inside the picture.
        outer = (
            max(0, left - line),
            max(0, top - line),
            min(image.width, right + line) - 1,  # both corners belong to Pillow's rectangle
            min(image.height, bottom + line) - 1,
        )
        draw.rectangle(outer, outline=HIGHLIGHT_COLOUR, width=line)
    return shown


def _scaled(box: Sequence[float], scale: float) -> tuple[float, float, float, float]:
    """An xyxy box with its sides scaled about its centre."""
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) * (scale - 1) / 2, (y2 - y1) * (scale - 1) / 2
    return x1 - dx, y1 - dy, x2 + dx, y2 + dy


def _pixels(image: Image.Image, box: Sequence[float]) -> tuple[int, int, int, int]:
    """The pixels that a box touches: [left, right) x [top, bottom)."""
    x1, y1, x2, y2 = box
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(image.width, math.ceil(x2)), min(image.height, math.ceil(y2))
    if right <= left or bottom <= top:
        shown = ", ".join(f"{value:g}" for value in box)
        raise DataError(
            f"the box ({shown}) lies outside its picture of {image.width} x {image.height} pixels"
        )
    return left, top, right, bottom
