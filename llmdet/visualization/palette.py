"""Colours of labels: one name has one colour, in every picture and every run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from llmdet.errors import ConfigError

RGB = tuple[int, int, int]

#: What ``--palette`` accepts; "none" is our own, by the names of the classes.
PALETTES = ("none", "random", "coco", "voc", "citys")

#: Colours that stay apart with every kind of colour vision: of all sets of ten that a search found,
#: the one whose two closest colours are farthest apart in OKLab (Ottosson 2020), under normal
#: sight and simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009).
DISTINCT_COLORS: tuple[RGB, ...] = (
    (168, 0, 0),
    (240, 228, 0),
    (36, 24, 240),
    (168, 180, 252),
    (228, 84, 12),
    (120, 48, 144),
    (84, 252, 228),
    (168, 108, 156),
    (252, 156, 120),
    (108, 132, 252),
)


def detection_colors(
    names: Sequence[str],
    labels: Sequence[int],
    palette: str | Sequence[RGB] = "none",
    classes: Iterable[str] | None = None,
) -> list[RGB]:
    """Return the colours of detections.

    Args:
        names: N names of classes or phrases; our own palette chooses by them.
        labels: N indices of the names; the other palettes choose by them.
        palette: See :func:`label_color`.
        classes: All that was looked for. With it a class keeps its colour in all pictures of one
            prompt, as far as the colours suffice.
    """
    if palette != "none":
        return [label_color(int(label), palette) for label in labels]
    shown = {_key(name) for name in names}
    known = {_key(name) for name in classes or ()} | shown
    slots = _slots(frozenset(known if len(known) <= len(DISTINCT_COLORS) else shown))
    return [DISTINCT_COLORS[slots[_key(name)]] for name in names]


@lru_cache(maxsize=1024)
def _slots(names: frozenset[str]) -> dict[str, int]:
    """Give each name the colour that its hash points to, or the next one that is free.

    Who comes first is decided by the hash too: neither the order of a prompt nor that of the
    scores changes a colour.
    """
    slots: dict[str, int] = {}
    taken: set[int] = set()
    for digest, name in sorted((_digest(name), name) for name in names):
        slot = digest % len(DISTINCT_COLORS)
        while slot in taken and len(taken) < len(DISTINCT_COLORS):
            slot = (slot + 1) % len(DISTINCT_COLORS)
        slots[name] = slot
        taken.add(slot)
    return slots


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _key(name: str) -> str:
    return " ".join(name.split()).strip(" .").casefold()


def label_color(label: int, palette: str | Sequence[RGB]) -> RGB:
    """Return the colour of a label as RGB in 0..255.

    Args:
        label: Index of the class or phrase, from 0.
        palette: One of :data:`PALETTES`, or a list of colours; a list shorter than the labels
            starts again from its beginning.

    Raises:
        ConfigError: The palette has no such name, or no colour in it.
    """
    if not isinstance(palette, str):
        if len(palette) == 0:
            raise ConfigError("The palette has no colour: give at least one RGB triple.")
        red, green, blue = palette[label % len(palette)]
        return int(red), int(green), int(blue)
    if palette == "none":
        return DISTINCT_COLORS[label % len(DISTINCT_COLORS)]
    if palette == "random":
        red, green, blue = np.random.default_rng(label).integers(0, 256, size=3)
        return int(red), int(green), int(blue)
    colors = _dataset_palette(palette)
    return colors[label % len(colors)]


def text_color(background: RGB) -> RGB:
    """Return black or white, whichever is easier to read on ``background`` (WCAG contrast)."""
    luminance = _relative_luminance(background)
    contrast_with_white = 1.05 / (luminance + 0.05)
    contrast_with_black = (luminance + 0.05) / 0.05
    # Coloured labels look calmer in white: black must be clearly better before it is taken.
    return (0, 0, 0) if contrast_with_black > 1.6 * contrast_with_white else (255, 255, 255)


def _relative_luminance(color: RGB) -> float:
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@lru_cache(maxsize=len(PALETTES))
def _dataset_palette(name: str) -> tuple[RGB, ...]:
    if name not in PALETTES:
        raise ConfigError(f"There is no palette {name!r}: choose one of {', '.join(PALETTES)}.")
    from mmdet import datasets

    owners = {
        "coco": datasets.CocoDataset,
        "voc": datasets.VOCDataset,
        "citys": datasets.CityscapesDataset,
    }
    return tuple(tuple(color) for color in owners[name].METAINFO["palette"])
