"""Scenes of the toy set: what is where, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from llmdet.datasets.toy.photographs import read_photograph
from llmdet.datasets.toy.vocabulary import COLOURS, Kind

#: Side of an object over the short side of its image.
SIZES: dict[str, tuple[float, float]] = {"small": (0.20, 0.26), "large": (0.34, 0.46)}
BACKGROUNDS: tuple[str, ...] = ("plain", "noisy", "shaded", "striped")
PHOTOGRAPH_SHARE = 0.125  # of the scenes, where photographs are given

_MARGIN = 2.0  # pixels between an object and the border
_GAP = 2.0  # pixels between the boxes of two objects
_TRIES = 30
_SUPERSAMPLING = 4
_MAX_ROTATION = np.deg2rad(15)  # far from the 45 degrees that would make a cross an X
_REPEAT_PROBABILITY = 0.25  # that an object repeats a kind of its image
_PATCH = (0.4, 1.0)  # of the largest patch of a photograph that has the scene's shape
_CONTRAST = (0.4, 1.0)  # of a photograph's patch

#: Shape -> its outline as :func:`unit_outline` gives it.
OutlineOf = Callable[[str], tuple[np.ndarray, ...]]


@dataclass(frozen=True, eq=False)
class Item:
    """One object of a scene."""

    kind: Kind
    size: str  # a key of SIZES
    outline: tuple[np.ndarray, ...]  # polygons [P, 2] in image pixels, even-odd filled

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Tight xyxy box in pixels, where pixel 0 covers 0..1."""
        low, high = self.outline[0].min(0), self.outline[0].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@dataclass(frozen=True)
class Scene:
    """An image to be drawn."""

    width: int
    height: int
    background: str  # of BACKGROUNDS, or "photograph"
    items: tuple[Item, ...]
    photograph: str = ""  # name of the one behind the objects


def sample_scene(
    rng: np.random.Generator,
    kinds: Sequence[Kind],
    weights: np.ndarray,
    required: Sequence[Kind] = (),
    size: int = 128,
    photographs: Sequence[str] = (),
    outline_of: OutlineOf | None = None,
) -> Scene:
    """Draw a random scene of one to six objects that do not touch.

    Args:
        rng: source of all randomness.
        kinds: what may appear.
        weights: [len(kinds)] probabilities, sum 1.
        required: kinds that certainly appear.
        size: nominal side of the image in pixels; both sides vary by a quarter around it.
        photographs: names of those that may lie behind the objects.
        outline_of: gives objects of a shape their outline; default: :func:`unit_outline`.
    """
    width, height = (int(v) for v in rng.integers(round(size * 0.75), round(size * 1.25) + 1, 2))
    items = sample_items(rng, kinds, weights, required, (width, height), outline_of)
    if photographs and rng.random() < PHOTOGRAPH_SHARE:
        name = photographs[int(rng.integers(len(photographs)))]
        return Scene(width, height, "photograph", items, name)
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    return Scene(width, height, background, items)


def sample_items(
    rng: np.random.Generator,
    kinds: Sequence[Kind],
    weights: np.ndarray,
    required: Sequence[Kind],
    size: tuple[int, int],
    outline_of: OutlineOf | None = None,
) -> tuple[Item, ...]:
    """One to six objects in an image of ``size`` (width, height); see :func:`sample_scene`."""
    wanted = list(required)
    count = max(int(rng.integers(1, 7)), len(wanted))
    while len(wanted) < count:
        if wanted and rng.random() < _REPEAT_PROBABILITY:
            wanted.append(wanted[int(rng.integers(len(wanted)))])
        else:
            wanted.append(kinds[int(rng.choice(len(kinds), p=weights))])
    items: list[Item] = []
    for kind in wanted:
        item = _place(rng, kind, *size, items, outline_of or unit_outline)
        if item is not None:
            items.append(item)
    return tuple(items)


def _place(
    rng: np.random.Generator,
    kind: Kind,
    width: int,
    height: int,
    others: Sequence[Item],
    outline_of: OutlineOf,
) -> Item | None:
    """Find a free place for an object, or None in a crowded image."""
    size = ("small", "large")[int(rng.integers(2))]
    for attempt in range(_TRIES):
        if attempt == _TRIES // 2:
            size = "small"
        low, high = SIZES[size]
        radius = rng.uniform(low, high) * min(width, height) / 2
        angle = rng.uniform(-_MAX_ROTATION, _MAX_ROTATION)
        outline = tuple(radius * _rotate(part, angle) for part in outline_of(kind.shape))
        low_corner, high_corner = outline[0].min(0), outline[0].max(0)
        free = np.array([width, height]) - 2 * _MARGIN - (high_corner - low_corner)
        shift = _MARGIN - low_corner + rng.random(2) * free
        item = Item(kind, size, tuple(part + shift for part in outline))
        if not any(_touch(item.box, other.box) for other in others):
            return item
    return None


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return across > -_GAP and down > -_GAP


def _rotate(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def unit_outline(shape: str) -> tuple[np.ndarray, ...]:
    """Polygons of a shape that fits the unit circle or the square around it, y down."""
    if shape == "circle":
        return (_regular_polygon(48),)
    if shape == "ring":
        return _regular_polygon(48), 0.55 * _regular_polygon(48)
    if shape == "triangle":
        return (_regular_polygon(3),)
    if shape == "star":
        radii = np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
        return (_regular_polygon(10) * radii,)
    if shape == "square":
        return (np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) * 0.9,)
    if shape == "cross":
        arm = 0.34
        quarter = np.array([[-arm, -1.0], [arm, -1.0], [arm, -arm]])
        return (np.concatenate([_rotate(quarter, k * np.pi / 2) for k in range(4)]),)
    if shape == "pentagon":
        return (_regular_polygon(5),)
    if shape == "heart":
        t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        down = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return (np.stack([16 * np.sin(t) ** 3, -down], 1) / 17,)
    if shape == "arrow":
        right = np.array([[0.0, -1.0], [0.75, -0.1], [0.3, -0.1], [0.3, 1.0]])
        return (np.concatenate([right, right[:0:-1] * (-1, 1)]),)
    if shape == "moon":
        angles = np.linspace(0.4 * np.pi, 1.6 * np.pi, 40)  # of a circle open to the right
        outer = np.stack([np.cos(angles), np.sin(angles)], 1)
        inner = np.stack([outer[0, 0] + 0.4 * (outer[:, 0] - outer[0, 0]), outer[:, 1]], 1)
        return (np.concatenate([outer, inner[-2:0:-1]]),)
    raise ValueError(f"no outline for the shape {shape!r}")


def _regular_polygon(corners: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(corners) / corners - np.pi / 2  # the first corner points up
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def draw_scene(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Paint a scene.

    Returns:
        [height, width, 3] uint8, RGB, antialiased.
    """
    return paint_items(_draw_background(scene, rng), scene.items, rng)


def paint_items(canvas: np.ndarray, items: Sequence[Item], rng: np.random.Generator) -> np.ndarray:
    """Paint objects, and noise over all, onto a float32 canvas [H, W, 3] that is used up.

    Returns:
        [H, W, 3] uint8.
    """
    for item in items:
        colour = np.array(COLOURS[item.kind.colour]) + rng.uniform(-10, 10, 3)
        _fill(canvas, item.outline, np.clip(colour, 0, 255).astype(np.float32))
    canvas += rng.normal(0, 2, canvas.shape).astype(np.float32)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _draw_background(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Paint grey, tinted by less than any colour of the vocabulary, or a patch of a photograph:
    float32 [H, W, 3]."""
    if scene.photograph:
        return _draw_patch(scene, rng)
    height, width = scene.height, scene.width
    grey = rng.uniform(95, 165)
    tint = rng.uniform(-12, 12, 3)
    level = np.full((height, width), grey, np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    direction = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(direction) + y * np.sin(direction)
    if scene.background == "noisy":
        coarse = rng.normal(0, 14, (height // 4 + 1, width // 4 + 1)).astype(np.float32)
        grain = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        level += np.asarray(grain, np.float32)
    elif scene.background == "shaded":
        level += (along - along.mean()) * np.float32(rng.uniform(30, 60) / np.ptp(along))
    elif scene.background == "striped":
        stripes = np.sign(np.sin(along * 2 * np.pi / rng.uniform(8, 20)))
        level += (10 * stripes).astype(np.float32)
    return (level[..., None] + tint).astype(np.float32)


def _draw_patch(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A random patch of the scene's photograph: float32 [H, W, 3].

    Mirrored or not, with its colour channels exchanged: few photographs give many backgrounds.
    """
    photograph = read_photograph(scene.photograph)
    largest = min(photograph.shape[0] / scene.height, photograph.shape[1] / scene.width)
    scale = largest * rng.uniform(*_PATCH)  # pixels of the photograph for one of the scene
    height, width = round(scale * scene.height), round(scale * scene.width)
    top = int(rng.integers(photograph.shape[0] - height + 1))
    left = int(rng.integers(photograph.shape[1] - width + 1))
    patch = photograph[top : top + height, left : left + width]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    patch = cv2.resize(patch, (scene.width, scene.height), interpolation=cv2.INTER_AREA)
    colours = np.asarray(patch, np.float32)[..., rng.permutation(3)]
    contrast = np.float32(rng.uniform(*_CONTRAST))
    return np.float32(128) + contrast * (colours - np.float32(128))


def _fill(canvas: np.ndarray, outline: Sequence[np.ndarray], colour: np.ndarray) -> None:
    """Blend even-odd filled polygons into the canvas."""
    coverage, (x1, y1) = _coverage(outline)
    region = canvas[y1 : y1 + coverage.shape[0], x1 : x1 + coverage.shape[1]]
    region += coverage[..., None] * (colour - region)


def item_mask(item: Item, size: tuple[int, int]) -> np.ndarray:
    """The pixels [height, width] bool of an image of ``size`` that an object covers by half."""
    mask = np.zeros(size, bool)
    coverage, (x1, y1) = _coverage(item.outline)
    mask[y1 : y1 + coverage.shape[0], x1 : x1 + coverage.shape[1]] = coverage >= 0.5
    return mask


def _coverage(outline: Sequence[np.ndarray]) -> tuple[np.ndarray, tuple[int, int]]:
    """How much of each pixel even-odd filled polygons cover, measured on a finer grid.

    Returns:
        [h, w] float32 in 0..1 of the pixels around them, and the first of these (x, y).
    """
    points = np.concatenate(list(outline))
    x1, y1 = np.floor(points.min(0)).astype(int)
    x2, y2 = np.ceil(points.max(0)).astype(int)
    scale, fraction_bits = _SUPERSAMPLING, 4
    fine = np.zeros(((y2 - y1) * scale, (x2 - x1) * scale), np.uint8)
    # cv2 puts integer coordinates at pixel centres, our pixel 0 covers 0..1
    corners = [
        np.rint(((part - (x1, y1)) * scale - 0.5) * 2**fraction_bits).astype(np.int32)
        for part in outline
    ]
    cv2.fillPoly(fine, corners, 255, lineType=cv2.LINE_8, shift=fraction_bits)
    coverage = cv2.resize(fine, (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)
    return coverage.astype(np.float32) / 255, (int(x1), int(y1))
