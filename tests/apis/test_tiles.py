"""Boxes come back from tiles where they were: proven with a detector that knows them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet import Tiles
from llmdet.apis.calls import Ask
from llmdet.apis.questions import Question
from llmdet.apis.reading import Request
from llmdet.apis.results import Picture, Results
from llmdet.apis.tiles import merge_views, through_tiles
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.types import Classes

CLASSES = ("dog", "cat")


def seen_in(window, boxes, labels):
    """What a perfect detector finds in a window: the visible parts of all boxes."""
    x1, y1, x2, y2 = window
    visible = np.clip(boxes, [x1, y1, x1, y1], [x2, y2, x2, y2])
    there = ((visible[:, 2:] - visible[:, :2]) > 0).all(axis=1)
    labels = labels[there]
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)[there]
    names = [CLASSES[label] for label in labels]
    picture = Picture(np.zeros((y2 - y1, x2 - x1, 3), np.uint8), x2 - x1, y2 - y1)
    return Results(picture, visible[there] - [x1, y1, x1, y1], scores, labels, names, CLASSES)


def by_corner(boxes):
    return sorted(map(tuple, np.round(boxes, 3).tolist()))


@st.composite
def scenes(draw):
    """Sizes, tiles, and boxes of which those of one label do not touch."""
    width, height = draw(st.integers(50, 700)), draw(st.integers(50, 700))
    tiles = Tiles(draw(st.integers(40, 260)), draw(st.floats(0.1, 0.6)), draw(st.booleans()))
    boxes, labels = [], []
    for _ in range(draw(st.integers(1, 6))):
        x1, y1 = draw(st.integers(0, width - 4)), draw(st.integers(0, height - 4))
        x2, y2 = draw(st.integers(x1 + 3, width)), draw(st.integers(y1 + 3, height))
        label = draw(st.integers(0, 1))
        apart = all(
            other != label or x2 <= a[0] or a[2] <= x1 or y2 <= a[1] or a[3] <= y1
            for a, other in zip(boxes, labels, strict=True)
        )
        if apart:
            boxes.append((x1, y1, x2, y2))
            labels.append(label)
    return width, height, tiles, np.array(boxes, np.float32), np.array(labels, np.int64)


@given(scenes())
@settings(max_examples=150)
def test_boxes_come_back_where_they_were_whatever_the_tiles(scene):
    width, height, tiles, boxes, labels = scene
    windows = tiles.windows(width, height)
    if tiles.whole:
        windows = np.concatenate([windows, [[0, 0, width, height]]])
    found = [seen_in(window, boxes, labels) for window in windows.tolist()]
    picture = Picture(np.zeros((height, width, 3), np.uint8), width, height)
    merged = merge_views(found, windows, picture)
    for label in (0, 1):
        assert by_corner(merged.boxes[merged.labels == label]) == by_corner(boxes[labels == label])
    assert merged.scores.tolist() == sorted(merged.scores, reverse=True)
    assert merged.names == [CLASSES[label] for label in merged.labels]


@given(st.integers(33, 3000), st.integers(33, 3000), st.integers(32, 900), st.floats(0.05, 0.9))
@settings(max_examples=60)
def test_tiles_cover_the_image_and_overlap_as_much_as_was_asked(width, height, size, overlap):
    windows = Tiles(size, overlap).windows(width, height)
    for low, high, length in ((0, 2, width), (1, 3, height)):
        starts, ends = np.unique(windows[:, low]), np.unique(windows[:, high])
        assert starts[0] == 0
        assert ends[-1] == length
        assert set(ends - starts) == {min(size, length)}
        if len(starts) > 1:
            assert (ends[:-1] - starts[1:]).min() >= overlap * size - 1  # rounded to pixels


def test_look_alikes_that_overlap_are_not_joined():
    boxes = np.array([[0, 0, 100, 100], [90, 0, 200, 100]], np.float32)
    windows = Tiles(128, 0.25, whole=False).windows(200, 128)
    found = [seen_in(window, boxes, np.zeros(2, np.int64)) for window in windows.tolist()]
    merged = merge_views(found, windows, Picture(np.zeros((128, 200, 3), np.uint8), 200, 128))
    assert by_corner(merged.boxes) == by_corner(boxes)


def test_the_tip_of_a_shape_goes_where_a_tile_shows_all_of_it():
    windows = np.array([[0, 0, 100, 100], [0, 60, 100, 160]])
    tip, whole = (
        np.array([[40, 80, 52, 100]], np.float32),
        np.array([[20, 80, 70, 150]], np.float32),
    )
    labels = np.zeros(1, np.int64)
    found = [seen_in((0, 0, 100, 100), tip, labels), seen_in((0, 60, 100, 160), whole, labels)]
    merged = merge_views(found, windows, Picture(np.zeros((160, 100, 3), np.uint8), 100, 160))
    assert by_corner(merged.boxes) == by_corner(whole)


def test_small_images_pass_whole_and_errors_stay_in_their_place(tmp_path):
    looked = []

    def stream(items, request, batch_size, return_errors):
        for source, _ in items:
            looked.append(np.shape(source)[:2])
            height, width = np.shape(source)[:2]
            yield seen_in((0, 0, width, height), np.zeros((0, 4)), np.zeros(0, np.int64))

    asked = Ask(Question(Classes(CLASSES), (), CLASSES))
    sources = [
        np.zeros((50, 60, 3), np.uint8),
        tmp_path / "none.jpg",
        np.zeros((50, 90, 3), np.uint8),
    ]
    items = [(source, asked) for source in sources]
    run = through_tiles(stream, Tiles(64, 0.25))
    small, missing, large = run(iter(items), Request(), 2, True)
    assert looked == [(50, 60), (50, 64), (50, 64), (50, 90)]
    assert isinstance(missing, DataError)
    assert (small.width, large.width, large.height) == (60, 90, 50)
    with pytest.raises(DataError, match=r"none\.jpg"):
        list(run(iter(items), Request(), 2, False))


def test_captions_are_of_the_merged_boxes_in_the_whole_image():
    boxes, asked_boxes = np.array([[10, 5, 80, 40]], np.float32), []

    def stream(items, request, batch_size, return_errors):
        for (source, asked), window in zip(items, [(0, 0, 64, 50), (36, 0, 100, 50)], strict=False):
            if asked.boxes is None:
                assert not request.captions
                yield seen_in(window, boxes, np.zeros(1, np.int64))
            else:
                asked_boxes.append((np.shape(source)[:2], asked.boxes.tolist(), request.captions))
                found = seen_in((0, 0, 100, 50), boxes, np.zeros(1, np.int64))
                yield replace(found, captions=["a long dog"], description="One dog.")

    asked = Ask(Question(Classes(CLASSES), (), CLASSES))
    request = Request(captions=frozenset({"image", "regions"}))
    run = through_tiles(stream, Tiles(64, 0.25, whole=False))
    (found,) = run(iter([(np.zeros((50, 100, 3), np.uint8), asked)]), request, 2, False)
    assert asked_boxes == [((50, 100), boxes.tolist(), request.captions)]
    assert (found.captions, found.description) == (["a long dog"], "One dog.")
    assert found.names == ["dog"]


@pytest.mark.parametrize("values", [{"size": 8}, {"size": 64.5}, {"overlap": 0}, {"overlap": 1}])
def test_tiles_that_cannot_be_cut_are_refused(values):
    with pytest.raises(ConfigError, match="of tiles is"):
        Tiles(**values)


def test_the_detector_finds_in_tiles_what_it_finds_in_crops(detector, photos):
    from PIL import Image

    pixels = np.asarray(Image.open(photos / "astronaut.png"))
    found = detector.predict(pixels, ["dog"], threshold=0, tiles=Tiles(320, 0.2, whole=False))
    windows = Tiles(320, 0.2).windows(512, 512)
    crops = [pixels[y1:y2, x1:x2] for x1, y1, x2, y2 in windows.tolist()]
    parts = detector.predict(crops, ["dog"], threshold=0)
    assert len(windows) == 4
    assert (found.width, found.height) == (512, 512)
    assert found.best_score == max(part.best_score for part in parts)
    assert found.scores[0] == max(part.scores[0] for part in parts)
    assert found.boxes.max() > 320
    assert len(detector.predict(pixels, ["dog"], threshold=0, tiles=320, nms=0.5)) > 0
