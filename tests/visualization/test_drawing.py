import numpy as np
import pytest

from llmdet.visualization.drawing import _font, _wrap, draw_boxes
from llmdet.visualization.palette import label_color

GREY = 90


def grey(width, height):
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def rows_and_columns(mask):
    rows, columns = np.where(mask)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_without_boxes_the_picture_is_the_image():
    image = grey(40, 30)
    drawn = draw_boxes(image, np.zeros((0, 4)), [], [], [])
    assert np.array_equal(drawn, image)
    assert drawn is not image


def test_the_image_is_left_as_it_is():
    image = grey(120, 90)
    draw_boxes(image, np.array([[10, 20, 60, 70]]), [0], ["dog"], [0.9])
    assert (image == GREY).all()


def test_the_outline_follows_the_box_in_the_colour_of_its_label():
    drawn = draw_boxes(grey(600, 400), np.array([[100, 120, 300, 350.0]]), [4], ["dog"])
    outline = (drawn == label_color(4)).all(axis=2)
    top, bottom, left, right = rows_and_columns(outline)
    assert (bottom, left, right) == (350, 100, 300)
    assert outline[200, 100]
    assert outline[200, 300]
    assert top < 120  # the label on top of it
    assert (drawn[200:300, 150:250] == GREY).all()


@pytest.mark.parametrize(("width", "height"), [(128, 128), (640, 480), (3000, 2000), (2000, 60)])
def test_lines_and_letters_grow_with_the_image(width, height):
    box = np.array([[0.3 * width, 0.5 * height, 0.8 * width, 0.9 * height]])
    drawn = draw_boxes(grey(width, height), box, [0], ["dog"], [0.5])
    assert drawn.shape == (height, width, 3)
    column = (drawn[:, int(0.75 * width)] == label_color(0)).all(axis=1)
    line = column.sum() / 2  # the column crosses the upper and the lower line
    expected = max(1, round(0.0038 * (width * height) ** 0.5))
    assert line == pytest.approx(expected, abs=1)


def test_labels_of_boxes_at_the_border_stay_inside():
    boxes = np.array([[0, 0, 128, 128], [100, 100, 140, 140], [-20, 90, 30, 160]])
    names = ["red circle", "blue square", "yellow star"]
    drawn = draw_boxes(grey(128, 128), boxes, [0, 1, 2], names, [0.9, 0.8, 0.7])
    for label in range(3):
        assert (drawn == label_color(label)).all(axis=2).sum() > 300


def test_small_boxes_are_drawn_over_large_ones():
    boxes = np.array([[100, 100, 140, 140], [100, 60, 300, 300.0]])
    drawn = draw_boxes(grey(400, 400), boxes, [0, 1], ["a", "b"])
    assert tuple(drawn[130, 100]) == label_color(0)


def test_boxes_and_phrases_of_any_kind_can_be_drawn():
    boxes = np.array([[50, 50, 50, 50], [-10, -10, -5, -5], [0, 0, 1e6, 1e6]])
    names = ["", "a\nb\tc", "ein sehr langes Wort " * 30]
    drawn = draw_boxes(grey(64, 64), boxes, [0, 1, 2], names, [0.0, 1.0, 0.5])
    assert drawn.shape == (64, 64, 3)


def test_the_same_call_draws_the_same_picture():
    boxes = np.random.default_rng(0).uniform(0, 200, (40, 4))
    boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    arguments = (boxes, list(range(40)), ["cat"] * 40, [0.5] * 40)
    assert np.array_equal(
        draw_boxes(grey(300, 300), *arguments), draw_boxes(grey(300, 300), *arguments)
    )


def test_long_phrases_wrap_between_words_and_keep_their_score():
    font = _font(12)
    rows = _wrap("the man in a red hat who stands near the old car 87", font, 100)
    assert 1 < len(rows) <= 3
    assert all(font.getlength(row) <= 100 for row in rows)
    assert rows[0].startswith("the man")
    assert rows[-1].endswith("87")


def test_a_word_wider_than_the_picture_is_cut():
    font = _font(12)
    (row,) = _wrap("Donaudampfschifffahrtsgesellschaft", font, 60)
    assert row.startswith("Don")
    assert row.endswith("…")
    assert font.getlength(row) <= 60
