"""Boxes of phrases, by a detector or out of a file."""

import json

import numpy as np
import pytest
from PIL import Image

from llmdet.apis import Detector
from llmdet.data_engines.detections import (
    DetectedBoxes,
    FiledBoxes,
    Found,
    Search,
    apart,
    found_in,
    phrase_of,
)
from llmdet.errors import DataError
from llmdet.evaluation.predictions import PredictionHeader


def picture(seed=0, size=(60, 40)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture(scope="module")
def detector(tiny) -> Detector:
    return Detector.from_pretrained(tiny.config, tiny.weights, device="cpu")


def test_a_detector_finds_each_pictures_own_phrases_in_any_batch(detector) -> None:
    searches = [
        Search("a.png", picture(0), ("red circle", "dog")),
        Search("b.png", picture(1, (40, 60)), ("dog",)),
        Search("c.png", picture(2), ("A dog!", "a dog", "dog")),
    ]
    together = DetectedBoxes(detector, {"detector": "x"}, 0.0, 3).answer(searches)
    for search, found in zip(searches, together, strict=True):
        assert found
        assert {one.phrase for one in found} <= set(search.phrases)
        assert [one.score for one in found] == sorted((o.score for o in found), reverse=True)
        width, height = search.image.size
        for one in found:
            x1, y1, x2, y2 = one.bbox
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
    alone = DetectedBoxes(detector, {}, 0.0)
    for search, found in zip(searches, together, strict=True):
        (single,) = alone.answer([search])
        boxes = [[one.bbox for one in boxes] for boxes in (single, found)]
        np.testing.assert_allclose(*boxes, atol=0.02)
    high = DetectedBoxes(detector, {"detector": "x"}, 1.0)
    assert high.answer(searches[:1]) == [[]]
    assert high.identity == {"detector": "x", "threshold": 1.0}


def test_a_phrase_that_is_none_fails_its_picture_alone(detector) -> None:
    endless = " ".join(["dog"] * 600)
    boxes = DetectedBoxes(detector, {}, 0.0, 8)
    searches = [Search("a", picture(), (phrase,)) for phrase in ("dog", endless, "red circle")]
    first, second, third = boxes.answer(searches)
    assert isinstance(second, DataError)
    assert first
    assert third


def write_boxes(folder, rows, classes=("car", "traffic_light"), **header):
    lines = [PredictionHeader(model="tiny", classes=classes, **header).as_dict(), *rows]
    (folder / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    images = [{"id": 7, "file_name": "a/x.jpg"}, {"id": 8, "file_name": "y.jpg"}]
    (folder / "gt.json").write_text(json.dumps({"images": images}))
    return folder / "p.jsonl", folder / "gt.json"


ROW = {
    "image_id": 7,
    "boxes": [[1, 2, 30, 30], [5, 5, 900, 20], [50, 2, 50, 9], [2, 2, 9, 9]],
    "scores": [0.5, 0.9, 0.8, 0.1],
    "labels": [0, 1, 1, 0],
}


def test_boxes_of_a_file_take_the_phrases_that_end_in_their_names(tmp_path) -> None:
    boxes = FiledBoxes(*write_boxes(tmp_path, [ROW]), 0.3)
    known, unknown = boxes.answer(
        [Search("a/x.jpg", picture(), ("two Red Cars",)), Search("z.jpg", picture(), ("car",))]
    )
    assert known == [
        Found([5, 5, 60, 20], "traffic light", 0.9),  # inside the picture; the third has no area
        Found([1, 2, 30, 30], "two Red Cars", 0.5),
    ]
    assert isinstance(unknown, DataError)


@pytest.mark.parametrize(
    ("rows", "header", "sentence"),
    [
        ([ROW], {"classes": ()}, "names no classes"),
        ([ROW | {"image_id": 9}], {}, "have no image id in common"),
        ([{"image_id": 7}], {}, "has no field 'boxes'"),
    ],
)
def test_files_that_do_not_help_are_refused(tmp_path, rows, header, sentence) -> None:
    with pytest.raises(DataError, match=sentence):
        FiledBoxes(*write_boxes(tmp_path, rows, **header), 0.3)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("car", "a red car"),
        ("cars", "a red car"),
        ("Bus", "Bus"),  # "cat" is no bus
        ("circle", "red circles"),
        ("", ""),
    ],
)
def test_a_phrase_is_of_a_class_that_its_last_words_name(name, phrase) -> None:
    assert phrase_of(name, ["a red car", "cat", "red circles", "car park"]) == phrase


def test_of_boxes_that_overlap_the_best_stays_whatever_its_phrase() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 4]], np.float32)
    found = found_in((40, 40), boxes, np.array([0.5, 0.9, 0.3, 0.8]), list("abcd"))
    assert [one.phrase for one in found] == ["b", "d", "a", "c"]
    assert [one.phrase for one in apart(found, 0.8)] == ["b", "d", "c"]
    assert [one.phrase for one in apart(found, 0.3)] == ["b", "c"]
    assert apart([], 0.5) == []
