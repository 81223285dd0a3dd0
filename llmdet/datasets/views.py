"""Views: what towers want to see of an image, made in workers from one decoded image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from llmdet.errors import ConfigError, DataError

Size = tuple[int, int]  # (height, width)
Triple = tuple[float, float, float]

#: Colours 0..255 that CLIP's and SigLIP's training subtracted and divided by, red first.
CLIP_MEAN: Triple = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD: Triple = (68.5005327, 66.6321579, 70.32316245)
SIGLIP_MEAN: Triple = (127.5, 127.5, 127.5)
SIGLIP_STD: Triple = (127.5, 127.5, 127.5)
#: SAM's.
SAM_MEAN: Triple = (123.675, 116.28, 103.53)
SAM_STD: Triple = (58.395, 57.12, 57.375)

FITS = ("pad", "stretch", "crop", "inside")
PADDINGS = ("colour", "zero")
_METHODS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class ViewSettings:
    """How an image becomes a view.

    Attributes:
        size: (height, width) of the view in pixels.
        fit: "pad": the whole image, its aspect kept, in a view of this size; "stretch": the whole
            image, its aspect lost; "crop": the middle of the image, which fills the view;
            "inside": the whole image, its shorter and longer side at most those of ``size``,
            without padding, as detectors see it.
        centred: the image stands in the middle of the padding, not in the upper left corner.
        mean, std: of colours 0..255, red first.
        padding: "colour": padding has the mean colour, in whole numbers; "zero": it is 0 behind
            the normalisation.
        interpolation: "bicubic", "bilinear" or "nearest", as Pillow has them: but for "nearest"
            they smooth what shrinks.
    """

    size: Size
    fit: str = "pad"
    centred: bool = True
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD
    interpolation: str = "bicubic"
    padding: str = "colour"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ConfigError(f"a view has fit={self.fit!r}; known: {', '.join(FITS)}")
        if self.interpolation not in _METHODS:
            raise ConfigError(
                f"a view has interpolation={self.interpolation!r}; known: {', '.join(_METHODS)}"
            )
        if self.padding not in PADDINGS:
            raise ConfigError(f"a view has padding={self.padding!r}; known: {', '.join(PADDINGS)}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise ConfigError(f"a view has size={self.size!r}; give (height, width) in pixels")


@dataclass(frozen=True)
class Placement:
    """Where an image lies in a view: pixel of the view = original pixel * scale + offset."""

    scale: tuple[float, float]  # (x, y); x is negative where the image is mirrored
    offset: tuple[float, float]  # (x, y) pixels of the view
    corner: tuple[int, int]  # (x, y) of the view, where the part that shows the image begins
    valid: Size  # (height, width) of that part
    original: Size  # (height, width) of the whole image


@dataclass(frozen=True, eq=False)
class ImageView:
    """What one tower sees of one image."""

    pixels: np.ndarray  # [3, H, W] uint8, red first
    placement: Placement
    settings: ViewSettings


def make_view(
    image: np.ndarray,
    settings: ViewSettings,
    *,
    window: tuple[int, int, int, int] | None = None,
    mirrored: bool = False,
) -> ImageView:
    """Make a view of an image.

    Args:
        image: [h, w, 3] uint8, blue first, as pipelines decode it.
        settings: what the tower wants.
        window: x1, y1, x2, y2 in pixels; only this part of the image is seen.
        mirrored: left and right change places.

    Raises:
        DataError: the window does not lie in the image.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = window or (0, 0, width, height)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise DataError(f"the window {window} does not lie in an image of {width} x {height}")
    seen = image[y1:y2, x1:x2]
    if mirrored:
        seen = seen[:, ::-1]
    rows, columns = _resized(y2 - y1, x2 - x1, settings)
    resized = _resize(seen, rows, columns, settings.interpolation)
    view = (rows, columns) if settings.fit == "inside" else settings.size
    top, left = 0, 0
    if settings.fit == "crop":
        top, left = -((rows - view[0]) // 2), -((columns - view[1]) // 2)
    elif settings.centred:
        top, left = (view[0] - rows) // 2, (view[1] - columns) // 2
    scale = columns / (x2 - x1), rows / (y2 - y1)
    if mirrored:
        scale_x, offset_x = -scale[0], left + x2 * scale[0]
    else:
        scale_x, offset_x = scale[0], left - x1 * scale[0]
    corner = max(left, 0), max(top, 0)
    placement = Placement(
        scale=(scale_x, scale[1]),
        offset=(offset_x, top - y1 * scale[1]),
        corner=corner,
        valid=(min(rows, view[0] - corner[1]), min(columns, view[1] - corner[0])),
        original=(height, width),
    )
    return ImageView(_paste(resized, (left, top), placement, view, settings), placement, settings)


def window_around(
    box: Sequence[float], size: Size, *, legacy: bool = False
) -> tuple[int, int, int, int]:
    """The part of an image in which one of its boxes is to be judged (SpatialRGPT's evaluation).

    Args:
        box: x1, y1, x2, y2 in pixels.
        size: (height, width) of the image.
        legacy: take the window wherever the original did, which compares both far edges with the
            shorter side, so that boxes on the right of wide images are cut or lost.

    Returns:
        x1, y1, x2, y2 of a square as high as the image's shorter side, with the box in its middle
        as far as the image allows; the whole image where the box is larger.
    """
    height, width = size
    side = min(size)
    x1, y1, x2, y2 = box
    if x2 - x1 > side or y2 - y1 > side:
        return 0, 0, width, height
    left, right = _span(int((x1 + x2) / 2), side, width, legacy=legacy)
    top, bottom = _span(int((y1 + y2) / 2), side, height, legacy=legacy)
    return left, top, right, bottom


def _span(centre: int, side: int, length: int, *, legacy: bool) -> tuple[int, int]:
    """Where a window of ``side`` pixels around a pixel begins and ends on an axis."""
    first = centre - side // 2
    if legacy:
        last = centre + side // 2
        first, last = (0, side) if first < 0 else (first, last)
        return (length - side, length) if last > side else (first, last)
    first = min(max(first, 0), length - side)
    return first, first + side


def inside(height: int, width: int, size: Size) -> Size:
    """The largest (height, width) of this aspect whose sides are at most those of ``size``.

    Which of the two is the width does not matter: the longer one limits the longer side.
    """
    longer, shorter = max(width, height), min(width, height)
    factor = min(max(size) / longer, min(size) / shorter)
    return int(height * factor), int(width * factor)


def _resized(height: int, width: int, settings: ViewSettings) -> Size:
    """Height and width to which what is seen is scaled, before it is padded or cut."""
    if settings.fit == "stretch":
        return settings.size
    if settings.fit == "inside":
        rows, columns = inside(height, width, settings.size)
        return max(1, rows), max(1, columns)
    ratios = settings.size[0] / height, settings.size[1] / width
    if settings.fit == "crop":
        factor = max(ratios)
        # Down to whole pixels, as CLIP's own preprocessing has it; never below the view.
        sides = math.floor(height * factor + 1e-9), math.floor(width * factor + 1e-9)
        return max(sides[0], settings.size[0]), max(sides[1], settings.size[1])
    factor = min(ratios)
    sides = int(height * factor + 0.5), int(width * factor + 0.5)
    return max(1, min(sides[0], settings.size[0])), max(1, min(sides[1], settings.size[1]))


def _resize(image: np.ndarray, rows: int, columns: int, interpolation: str) -> np.ndarray:
    if (rows, columns) == image.shape[:2]:
        return image
    resized = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(resized.resize((columns, rows), _METHODS[interpolation]))


def _paste(
    resized: np.ndarray,
    place: tuple[int, int],
    placement: Placement,
    size: Size,
    settings: ViewSettings,
) -> np.ndarray:
    """The pixels [3, H, W] of a view, in which ``resized`` begins at ``place`` (x, y)."""
    pixels = np.empty((3, *size), np.uint8)
    pixels[:] = np.array([int(value) for value in settings.mean], np.uint8)[:, None, None]
    (x, y), (height, width) = placement.corner, placement.valid
    left, top = x - place[0], y - place[1]
    part = resized[top : top + height, left : left + width, ::-1]  # red first
    pixels[:, y : y + height, x : x + width] = part.transpose(2, 0, 1)
    return pixels
