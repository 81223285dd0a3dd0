from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, rgb2lab

from llmdet.errors import ConfigError
from llmdet.visualization.palette import (
    DISTINCT_COLORS,
    PALETTES,
    detection_colors,
    label_color,
    text_color,
)

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
COLOR_VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
NAMES = ["person", "red circle", "traffic light", "猫", "a man on a horse", "wheel", "dog", "cup"]


def seen_as(colors, matrix):
    """CIELAB of sRGB colours as an eye with this vision sees them."""
    values = np.asarray(colors) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ matrix.T, 0, 1)
    back = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(back)


def contrast(first, second):
    """WCAG 2 contrast ratio, written down independently."""

    def luminance(color):
        channels = [value / 255 for value in color]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("vision", COLOR_VISION)
def test_colours_stay_apart_with_every_kind_of_colour_vision(vision):
    seen = seen_as(DISTINCT_COLORS, COLOR_VISION[vision])
    distances = [deltaE_ciede2000(a, b) for a, b in combinations(seen, 2)]
    assert min(distances) > 12  # about 2 is just noticeable


@settings(deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1), st.randoms())
def test_the_order_of_names_and_prompts_changes_no_colour(names, random):
    shuffled = random.sample(names, len(names))
    labels = range(len(names))
    first = dict(zip(names, detection_colors(names, labels), strict=True))
    second = dict(zip(shuffled, detection_colors(shuffled, labels), strict=True))
    assert first == second


@given(st.lists(st.sampled_from(NAMES), min_size=1))
def test_classes_that_were_looked_for_have_one_colour_in_all_pictures(names):
    colors = detection_colors(names, range(len(names)), classes=NAMES)
    known = dict(zip(NAMES, detection_colors(NAMES, range(len(NAMES))), strict=True))
    assert colors == [known[name] for name in names]
    assert len(set(known.values())) == len(NAMES)


def test_a_long_list_of_classes_leaves_those_of_a_picture_apart():
    classes = [f"class {number}" for number in range(1000)]
    colors = detection_colors(classes[:10], range(10), classes=classes)
    assert len(set(colors)) == 10


def test_spelling_of_a_name_changes_no_colour():
    colors = detection_colors(["Red  circle.", "red circle", "dog"], [0, 1, 2])
    assert colors[0] == colors[1] != colors[2]


@pytest.mark.parametrize("palette", PALETTES)
@settings(deadline=None)  # the first palette of a data set imports mmdet
@given(label=st.integers(0, 5000))
def test_every_label_has_one_colour_in_every_palette(palette, label):
    color = label_color(label, palette)
    assert color == label_color(label, palette)
    assert len(color) == 3
    assert all(isinstance(value, int) and 0 <= value <= 255 for value in color)


@given(label=st.integers(0, 5000), palette=st.sampled_from(["none", "random"]))
def test_text_on_a_label_is_readable(label, palette):
    background = label_color(label, palette)
    assert contrast(text_color(background), background) > 3


def test_text_is_black_on_light_and_white_on_dark():
    assert text_color((255, 255, 0)) == (0, 0, 0)
    assert text_color((0, 0, 128)) == (255, 255, 255)


def test_coco_palette_is_that_of_the_data_set():
    assert label_color(0, "coco") == (220, 20, 60)
    assert detection_colors(["anything"], [0], "coco") == [(220, 20, 60)]


def test_a_short_palette_starts_again():
    assert label_color(3, [(1, 2, 3), (4, 5, 6)]) == (4, 5, 6)


def test_unknown_and_empty_palettes_are_refused():
    with pytest.raises(ConfigError, match=r"rainbow.*choose one of none, random"):
        label_color(0, "rainbow")
    with pytest.raises(ConfigError, match="no colour"):
        label_color(0, [])
