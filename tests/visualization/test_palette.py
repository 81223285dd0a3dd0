import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.errors import ConfigError
from llmdet.visualization.palette import PALETTES, label_color, text_color


def contrast(first, second):
    """WCAG 2 contrast ratio, written down independently."""

    def luminance(color):
        channels = [value / 255 for value in color]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", PALETTES)
@settings(deadline=None)  # the first palette of a data set imports mmdet
@given(label=st.integers(0, 5000))
def test_every_label_has_one_colour_in_every_palette(palette, label):
    color = label_color(label, palette)
    assert color == label_color(label, palette)
    assert len(color) == 3
    assert all(isinstance(value, int) and 0 <= value <= 255 for value in color)


def test_the_first_colours_of_our_palette_are_easy_to_tell_apart():
    colors = [label_color(label) for label in range(12)]
    distances = [
        sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5
        for index, first in enumerate(colors)
        for second in colors[:index]
    ]
    assert min(distances) > 40


@given(label=st.integers(0, 5000), palette=st.sampled_from(["none", "random"]))
def test_text_on_a_label_is_readable(label, palette):
    background = label_color(label, palette)
    assert contrast(text_color(background), background) > 3


def test_text_is_black_on_light_and_white_on_dark():
    assert text_color((255, 255, 0)) == (0, 0, 0)
    assert text_color((0, 0, 128)) == (255, 255, 255)


def test_coco_palette_is_that_of_the_data_set():
    assert label_color(0, "coco") == (220, 20, 60)


def test_a_short_palette_starts_again():
    assert label_color(3, [(1, 2, 3), (4, 5, 6)]) == (4, 5, 6)


def test_unknown_and_empty_palettes_are_refused():
    with pytest.raises(ConfigError, match=r"rainbow.*choose one of none, random"):
        label_color(0, "rainbow")
    with pytest.raises(ConfigError, match="no colour"):
        label_color(0, [])
