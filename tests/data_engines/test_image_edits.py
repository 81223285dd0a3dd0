"""Each edit of a picture shows exactly what its name says."""

import numpy as np
import pytest
from PIL import Image

from llmdet.data_engines.image_edits import ImageEdit, edited_pictures
from llmdet.errors import DataError

RED = (255, 0, 0)


@pytest.fixture
def image() -> Image.Image:
    """120 x 80 pixels, each with its own place in its colour: (x, y, 7)."""
    y, x = np.mgrid[0:80, 0:120]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 7)], -1).astype(np.uint8))


def part(image: Image.Image, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    return np.asarray(image)[top:bottom, left:right]


def test_a_crop_is_the_box_and_no_frame(image):
    [crop] = edited_pictures(image, [(20, 30, 50, 45)], ImageEdit.CROP)
    np.testing.assert_array_equal(crop, part(image, 20, 30, 50, 45))


def test_a_crop_holds_every_pixel_that_the_box_touches(image):
    [crop] = edited_pictures(image, [(20.7, 30.2, 49.1, 45.0)], ImageEdit.CROP)
    np.testing.assert_array_equal(crop, part(image, 20, 30, 50, 45))


def test_an_extended_crop_is_the_box_twice_as_wide_and_high_and_no_frame(image):
    [crop] = edited_pictures(image, [(40, 30, 60, 40)], ImageEdit.EXTENDED_CROP)
    np.testing.assert_array_equal(crop, part(image, 30, 25, 70, 45))


def test_an_extended_crop_is_cut_at_the_border(image):
    [crop] = edited_pictures(image, [(0, 60, 40, 80)], ImageEdit.EXTENDED_CROP)
    np.testing.assert_array_equal(crop, part(image, 0, 50, 60, 80))


@pytest.mark.parametrize("scale", [1, 3])
def test_a_highlight_is_the_whole_picture_with_a_red_line_around_the_box(image, scale):
    image = image.resize((120 * scale, 80 * scale), Image.Resampling.NEAREST)
    x1, y1, x2, y2 = box = (40 * scale, 30 * scale, 60 * scale, 45 * scale)
    line = {1: 1, 3: 2}[scale]  # 1 % of the shorter side, at least one pixel
    before = np.asarray(image).copy()
    [shown] = edited_pictures(image, [box], ImageEdit.HIGHLIGHT)
    expected = before.copy()
    expected[y1 - line : y2 + line, x1 - line : x2 + line] = RED
    expected[y1:y2, x1:x2] = before[y1:y2, x1:x2]
    np.testing.assert_array_equal(shown, expected)
    np.testing.assert_array_equal(image, before)  # the caller's picture is not drawn on


def test_the_line_of_a_box_at_the_border_stays_in_the_picture(image):
    [shown] = edited_pictures(image, [(0, 0, 120, 80)], ImageEdit.HIGHLIGHT)
    red = (np.asarray(shown) == RED).all(-1)
    assert red[0].all()
    assert red[-1].all()
    assert red[:, 0].all()
    assert red[:, -1].all()
    assert not red[1:-1, 1:-1].any()


def test_several_objects_are_cropped_apart_and_highlighted_together(image):
    boxes = [(10, 10, 20, 20), (60, 40, 80, 70)]
    assert [c.size for c in edited_pictures(image, boxes, ImageEdit.CROP)] == [(10, 10), (20, 30)]
    [shown] = edited_pictures(image, boxes, ImageEdit.HIGHLIGHT)
    assert shown.size == image.size
    assert shown.getpixel((9, 15)) == shown.getpixel((59, 50)) == RED


@pytest.mark.parametrize("edit", ImageEdit)
def test_a_box_outside_the_picture_is_refused(image, edit):
    with pytest.raises(DataError, match=r"\(300, 10, 320, 20\) lies outside .* 120 x 80"):
        edited_pictures(image, [(300, 10, 320, 20)], edit)
