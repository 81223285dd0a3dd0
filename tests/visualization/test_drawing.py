import numpy as np
import pytest
from PIL import Image

from llmdet.visualization.drawing import draw_detections, draw_numbered_boxes, tint_masks
from llmdet.visualization.palette import DISTINCT_COLORS, detection_colors

GREY = 90


def grey(width, height):
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def overlaps(labels):
    shown = [label for label in labels if label.any()]
    pairs = [(a, b) for i, a in enumerate(shown) for b in shown[:i]]
    low = [np.maximum(a[:2], b[:2]) for a, b in pairs]
    high = [np.minimum(a[2:], b[2:]) for a, b in pairs]
    return sum(bool((h > lo).all()) for lo, h in zip(low, high, strict=True))


def crowd(count, classes, width=640, height=480):
    random = np.random.default_rng(0)
    corner = random.uniform(0, [0.85 * width, 0.85 * height], (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(10, 90, (count, 2))], axis=1)
    labels = random.integers(0, classes, count)
    return boxes, labels, [f"kind {label}" for label in labels], random.uniform(0.3, 1, count)


def test_without_boxes_the_picture_is_the_image():
    image = grey(900, 700)
    drawn = draw_detections(image, np.zeros((0, 4)), [], [], []).picture
    assert np.array_equal(drawn, image)
    assert drawn is not image


def test_the_image_is_left_as_it_is():
    image = grey(120, 90)
    draw_detections(image, np.array([[10, 20, 60, 70]]), [0], ["dog"], [0.9])
    assert (image == GREY).all()


def test_the_outline_follows_the_box_in_the_colour_of_its_name():
    drawn = draw_detections(
        grey(900, 800), np.array([[100, 120, 300, 350.0]]), [4], ["dog"]
    ).picture
    outline = (drawn == detection_colors(["dog"], [4])[0]).all(axis=2)
    rows, columns = np.where(outline)
    assert (rows.max(), columns.min(), columns.max()) == (350, 100, 300)
    assert outline[200, 100]
    assert outline[200, 300]
    assert rows.min() < 120  # the label on top of it
    assert (drawn[200:300, 150:250] == GREY).all()


@pytest.mark.parametrize("size", [(128, 128), (100, 400), (2000, 60), (640, 480), (3000, 2000)])
def test_small_images_are_enlarged_to_a_readable_size(size):
    width, height = size
    box = np.array([[0.3 * width, 0.5 * height, 0.8 * width, 0.9 * height]])
    drawn = draw_detections(grey(width, height), box, [0], ["dog"], [0.5])
    side = (drawn.picture.shape[0] * drawn.picture.shape[1]) ** 0.5
    assert side > 700 or max(drawn.picture.shape) >= 1600
    assert drawn.scale == 1 or side < 730
    assert drawn.picture.shape[1] == round(drawn.scale * width)
    column = (drawn.picture == detection_colors(["dog"], [0])[0]).all(axis=2)
    bottom = round(0.9 * height * drawn.scale)
    assert column[bottom - 1, round(0.5 * width * drawn.scale)]


@pytest.mark.parametrize("image_size", [(128, 128), (640, 480)])
def test_labels_lie_beside_their_objects_where_there_is_room(image_size):
    boxes = np.array([[20.0, 30, 50, 60], [60, 40, 110, 70], [30, 80, 60, 110]])
    names = ["red circle", "blue square", "yellow star"]
    drawn = draw_detections(grey(*image_size), boxes, [0, 1, 2], names, [0.9, 0.8, 0.7])
    assert not drawn.legend
    for label in drawn.labels:
        for box in boxes * drawn.scale:
            shared = np.minimum(label[2:], box[2:]) - np.maximum(label[:2], box[:2])
            assert shared.min() <= 1  # rounding


@pytest.mark.parametrize(("count", "classes"), [(5, 2), (14, 14), (60, 4), (60, 30), (300, 3)])
def test_labels_never_overlap(count, classes):
    drawn = draw_detections(grey(640, 480), *crowd(count, classes))
    assert overlaps(drawn.labels) == 0
    assert any(label.any() for label in drawn.labels)


def test_many_labels_get_a_legend_with_counts():
    boxes, labels, names, scores = crowd(60, 4)
    drawn = draw_detections(grey(640, 480), boxes, labels, names, scores)
    assert sorted(entry.text for entry in drawn.legend) == sorted(
        f"{name} \u00d7 {names.count(name)}" for name in set(names)
    )
    assert {entry.tag for entry in drawn.legend} == {""}
    legend = drawn.picture[round(480 * drawn.scale) :]
    assert len(legend)
    for entry in drawn.legend:
        assert (legend == entry.color).all(axis=2).any()


def test_more_classes_than_colours_are_numbered():
    boxes, labels, names, scores = crowd(60, 30)
    drawn = draw_detections(grey(640, 480), boxes, labels, names, scores)
    assert len(drawn.legend) > len(DISTINCT_COLORS)
    assert len({entry.tag for entry in drawn.legend}) == len(drawn.legend)


def test_captions_and_the_description_stand_below_the_picture():
    boxes = np.array([[10.0, 40, 60, 80], [70, 40, 110, 80]])
    shown = {"captions": ["A dog on a lawn.", "Cat."], "description": "A garden. " * 30}
    drawn = draw_detections(grey(128, 128), boxes, [0, 1], ["dog", "cat"], **shown)
    assert [entry.text for entry in drawn.legend] == ["A dog on a lawn.", "cat"]
    assert [entry.tag for entry in drawn.legend] == ["1", "2"]
    without = draw_detections(grey(128, 128), boxes, [0, 1], ["dog", "cat"], captions=["Dog", ""])
    assert not without.legend
    assert len(drawn.picture) > len(without.picture) + 60


def test_boxes_without_scores_show_none(monkeypatch):
    written = []
    monkeypatch.setattr(
        "llmdet.visualization.text.Lettering.write", lambda *arguments: written.append(arguments[3])
    )
    boxes = np.array([[10.0, 40, 60, 80]])
    draw_detections(grey(128, 128), boxes, [0], ["dog"])
    draw_detections(grey(128, 128), boxes, [0], ["dog"], [0.51])
    assert written == ["dog", "dog 51%"]


def test_small_boxes_are_drawn_over_large_ones():
    boxes = np.array([[100, 100, 140, 140], [100, 60, 300, 300.0]])
    drawn = draw_detections(grey(800, 800), boxes, [0, 1], ["a", "b"]).picture
    assert tuple(drawn[130, 100]) == detection_colors(["a", "b"], [0, 1])[0]


def test_boxes_and_phrases_of_any_kind_can_be_drawn():
    boxes = np.array([[50, 50, 50, 50], [-10, -10, -5, -5], [0, 0, 1e6, 1e6]])
    names = ["", "a\nb\tc", "ein sehr langes Wort " * 30]
    drawn = draw_detections(grey(64, 64), boxes, [0, 1, 2], names, [0.0, 1.0, 0.5]).picture
    assert drawn.shape[1] == 720


def test_the_same_call_draws_the_same_picture():
    first, second = (draw_detections(grey(300, 300), *crowd(40, 5)).picture for _ in range(2))
    assert np.array_equal(first, second)


def test_a_photograph_keeps_its_pixels_outside_of_what_is_drawn():
    image = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    drawn = draw_detections(image, np.array([[300.0, 300, 500, 500]]), [0], ["dog"]).picture
    assert np.array_equal(drawn[600:], image[600:])
    assert np.array_equal(np.array(Image.fromarray(drawn))[:200], image[:200])


def test_every_box_of_a_crowd_has_a_number(monkeypatch):
    from llmdet.visualization.text import Lettering

    written = []
    write = Lettering.write
    monkeypatch.setattr(Lettering, "write", lambda *args: written.append(args[3]) or write(*args))
    boxes = np.concatenate([crowd(30, 1)[0], np.tile([[5.0, 5, 400, 300]], (10, 1))])
    drawn = draw_numbered_boxes(grey(640, 480), boxes)
    assert sorted(written, key=int) == [str(1 + number) for number in range(40)]
    assert min(drawn.shape[:2]) >= 480
    assert np.array_equal(draw_numbered_boxes(grey(900, 800), boxes[:0]), grey(900, 800))


def test_masks_are_seen_through():
    image, mask = grey(4, 3), np.zeros((3, 4), bool)
    mask[1] = True
    tinted = tint_masks(image, [mask], [(255, 0, 0)])
    assert (image == GREY).all()
    assert (tinted[~mask] == GREY).all()
    assert (tinted[1, :, 0] > GREY).all()
    assert ((tinted[1, :, 1:] > 0) & (tinted[1, :, 1:] < GREY)).all()
