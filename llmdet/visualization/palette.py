"""Colours of labels: one label has one colour, in every picture and every run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from llmdet.errors import ConfigError

RGB = tuple[int, int, int]

#: What ``--palette`` accepts; "none" is our own, evenly spread over the hues.
PALETTES = ("none", "random", "coco", "voc", "citys")

_GOLDEN_ANGLE = 137.508  # degrees; successive multiples never come close to each other
_FIRST_HUE = 25.0  # degrees in OKLCH: label 0 is a warm red
_LIGHTNESS = (0.68, 0.80, 0.58)


def label_color(label: int, palette: str | Sequence[RGB] = "none") -> RGB:
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
        return _spread_color(label)
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


@lru_cache(maxsize=4096)
def _spread_color(label: int) -> RGB:
    hue = math.radians(_FIRST_HUE + label * _GOLDEN_ANGLE)
    lightness = _LIGHTNESS[label // 8 % len(_LIGHTNESS)]
    return _oklch_to_rgb(lightness, 0.19, hue)


def _oklch_to_rgb(lightness: float, chroma: float, hue: float) -> RGB:
    """Convert OKLCH (Ottosson 2020) to sRGB, with as much chroma as the display can show."""
    while True:
        a, b = chroma * math.cos(hue), chroma * math.sin(hue)
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = (
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        )
        if chroma < 0.01 or all(-1e-4 <= channel <= 1 + 1e-4 for channel in linear):
            break
        chroma -= 0.005
    red, green, blue = (round(255 * _gamma(min(max(channel, 0.0), 1.0))) for channel in linear)
    return red, green, blue


def _gamma(channel: float) -> float:
    return 12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055


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
