"""An eye for toy pictures: it finds coloured shapes in pixels, and knows no more of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from llmdet.datasets.toy.scene import unit_outline
from llmdet.datasets.toy.vocabulary import COLOURS, SHAPES, Kind

#: Of the longer side of the picture: the shape of a smaller object cannot be told.
ACUITY = 0.2
#: Of the shorter side of a whole picture, between small objects and large ones.
SMALL_BELOW = 0.29
FRAME_COLOUR = (255, 0, 0)
_COLOUR_DISTANCE = 45.0  # in RGB, between a pixel and a word's colour
_LEAST_PIXELS = 12  # of an object
_ANGLES = np.deg2rad(np.arange(-15, 16, 5))
_TEMPLATE = 32  # pixels of a side
_FILLS = 0.85  # of both sides of the picture: the object is all that is shown


@dataclass(frozen=True, eq=False)
class Seen:
    """A coloured thing in a picture."""

    colour: str
    box: tuple[int, int, int, int]  # xyxy in pixels of the picture
    mask: np.ndarray  # [H, W] bool, inside the box
    is_cut: bool  # it touches the border of the picture

    @property
    def side(self) -> int:
        """The longer side of the box, in pixels."""
        return max(self.mask.shape)


@dataclass(frozen=True)
class View:
    """What is in a picture."""

    width: int
    height: int
    things: tuple[Seen, ...]
    frame: tuple[int, int, int, int] | None  # xyxy of the red frame, where there is one

    def subject(self) -> Seen | None:
        """What the picture is about: what is framed, what fills it, or the largest whole thing."""
        if self.frame is not None:
            x1, y1, x2, y2 = self.frame
            framed = [
                thing
                for thing in self.things
                if x1 <= sum(thing.box[::2]) / 2 <= x2 and y1 <= sum(thing.box[1::2]) / 2 <= y2
            ]
            return max(framed, key=_area, default=None)
        for thing in self.things:
            height, width = thing.mask.shape
            if width >= _FILLS * self.width and height >= _FILLS * self.height:
                return thing
        return max((thing for thing in self.things if not thing.is_cut), key=_area, default=None)

    def kind(self, thing: Seen) -> Kind | None:
        """Colour and shape, None where the thing is too small or cut by the border."""
        fills = thing is self.subject()
        if thing.side < ACUITY * max(self.width, self.height) or (thing.is_cut and not fills):
            return None
        return Kind(thing.colour, shape_of(thing.mask))


def look(pixels: np.ndarray) -> View:
    """Find what is in a picture.

    Args:
        pixels: [H, W, 3] uint8, RGB.
    """
    height, width = pixels.shape[:2]
    palette = np.array(list(COLOURS.values()), np.float32)
    colours = pixels.astype(np.float32)
    squares = (palette**2).sum(-1) - 2 * (colours @ palette.T)  # but for the pixel's own square
    distance = squares.min(-1) + (colours**2).sum(-1)
    nearest = np.where(distance < _COLOUR_DISTANCE**2, squares.argmin(-1), -1)
    framed = (pixels == FRAME_COLOUR).all(-1)
    nearest[framed] = -1
    things = []
    for number, colour in enumerate(COLOURS):
        mask = (nearest == number).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for component in range(1, count):
            x, y, w, h, area = (int(value) for value in stats[component])
            if area >= _LEAST_PIXELS and min(w, h) >= 3:
                cut = x == 0 or y == 0 or x + w == width or y + h == height
                shown = labels[y : y + h, x : x + w] == component
                things.append(Seen(colour, (x, y, x + w, y + h), shown, cut))
    return View(width, height, tuple(things), _bounds(framed))


def shape_of(mask: np.ndarray) -> str:
    """The shape that covers a mask [H, W] best."""
    shown = cv2.resize(
        mask.astype(np.float32), (_TEMPLATE, _TEMPLATE), interpolation=cv2.INTER_LINEAR
    )
    names, templates = _templates()
    both = np.minimum(templates, shown).sum((1, 2))
    either = np.maximum(templates, shown).sum((1, 2))
    return names[int((both / either).argmax())]


@lru_cache(maxsize=1)
def _templates() -> tuple[list[str], np.ndarray]:
    """Names [T], and masks [T, side, side] in 0..1, of all shapes at all angles."""
    names, masks = [], []
    for shape in SHAPES:
        for angle in _ANGLES:
            names.append(shape)
            masks.append(_template(shape, float(angle)))
    return names, np.stack(masks)


def _template(shape: str, angle: float) -> np.ndarray:
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    parts = [part @ turn for part in unit_outline(shape)]
    low, high = parts[0].min(0), parts[0].max(0)
    fine = np.zeros((4 * _TEMPLATE, 4 * _TEMPLATE), np.uint8)
    corners = [
        np.rint((part - low) / (high - low) * (4 * _TEMPLATE - 1)).astype(np.int32)
        for part in parts
    ]
    cv2.fillPoly(fine, corners, 255)
    shrunk = cv2.resize(fine, (_TEMPLATE, _TEMPLATE), interpolation=cv2.INTER_AREA)
    return shrunk.astype(np.float32) / 255


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    y, x = np.nonzero(mask)
    if not len(x):
        return None
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1


def _area(thing: Seen) -> int:
    return int(thing.mask.sum())
