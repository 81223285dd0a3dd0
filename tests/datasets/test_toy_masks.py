"""Conversations with masks of the toy set are true of what was drawn."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from llmdet.datasets.masks import decode_mask
from llmdet.datasets.rows import read_row
from llmdet.datasets.toy import ToySettings, generate
from llmdet.datasets.toy.__main__ import main
from llmdet.datasets.toy.masks import TASKS, write_mask_questions
from llmdet.datasets.toy.vocabulary import COLOURS
from llmdet.errors import DataError
from llmdet.prompts.masks import marked_regions
from llmdet.prompts.objects import ObjectGrammar


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    main([str(folder), "--train", "12", "--val", "16", "--no-photographs", "--masks"])
    return folder


def rows_of(toy, split):
    text = (toy / "annotations" / f"{split}_masks.jsonl").read_text()
    return list(map(json.loads, text.splitlines()))


@pytest.fixture(scope="module")
def asked(toy):
    return [*rows_of(toy, "val_seen"), *rows_of(toy, "val_unseen")]


def test_masks_are_the_pixels_that_have_the_colour(toy, asked):
    """Of whole kinds, whose colour the question names."""
    checked = 0
    for row in asked:
        if row["task"] != "refer":
            continue
        question = row["conversations"][0]["value"]
        colour = question.removeprefix("<image>\nSegment the ").split()[0]
        (region,) = marked_regions(read_row(row, "row").conversation.turns)
        mask = decode_mask(row["regions"][region]["segmentation"], (row["height"], row["width"]))
        inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
        pixels = cv2.imread(str(toy / "images" / row["filename"]))[..., ::-1]
        if inside.sum() > 20:
            assert np.abs(np.median(pixels[inside], 0) - COLOURS[colour]).max() < 25
            checked += 1
        x1, y1, x2, y2 = row["regions"][region]["bbox"]
        y, x = mask.nonzero()
        np.testing.assert_allclose(
            (x.min(), y.min(), x.max() + 1, y.max() + 1), (x1, y1, x2, y2), atol=2
        )
    assert checked > 20


def test_every_task_is_asked_and_is_a_row(asked):
    assert {row["task"] for row in asked} == set(TASKS)
    assert {row["unseen"] for row in asked} == {False, True}
    for number, row in enumerate(asked):
        said = read_row(row, f"row {number}")
        assert len(said.conversation.turns) == 2


def test_captions_name_all_objects_from_the_top(asked):
    for row in (row for row in asked if row["task"] == "caption"):
        answer = row["conversations"][1]["value"]
        assert answer.count("<mask:") == answer.count("<p>") == len(row["regions"])
        middle = [(r["bbox"][1] + r["bbox"][3]) / 2 / row["height"] for r in row["regions"]]
        thirds = [int(3 * each) for each in middle]
        assert thirds == sorted(thirds)


def test_what_is_found_is_what_the_same_image_is_said_to_show(asked):
    grammar = ObjectGrammar()
    names = {}
    for row in (row for row in asked if row["task"] == "name"):
        question, answer = (turn["value"] for turn in row["conversations"])
        index = int(question.rpartition("<obj")[2].partition(">")[0])
        names[row["filename"], tuple(row["regions"][index]["bbox"])] = answer
    sides = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
    related = 0
    for row in (row for row in asked if row["task"] in ("find", "relate")):
        question, answer = (turn["value"] for turn in row["conversations"])
        (named,) = grammar.parse(answer).phrases
        (index,) = named.indices
        box = row["regions"][index]["bbox"]
        assert names[row["filename"], tuple(box)] == named.phrase
        if row["task"] == "relate":
            related += 1
            rest = question.partition("Which of these is ")[2].partition("? Answer")[0]
            word, _, other = rest.partition(" the ")
            axis, sign = sides[word]
            others = [
                r["bbox"]
                for r in row["regions"]
                if names[row["filename"], tuple(r["bbox"])] == other
            ]
            assert len(others) == 1
            assert sign * (box[axis] + box[axis + 2] - others[0][axis] - others[0][axis + 2]) > 0
            assert answer.endswith(f"<mask:{index}>")
    assert related > 10


def test_training_never_names_an_unseen_combination_and_learns_every_kind_of_answer(toy, asked):
    text = " ".join(turn["value"] for row in rows_of(toy, "train") for turn in row["conversations"])
    unseen = {
        name
        for row in asked
        if row["task"] == "name" and row["unseen"]
        for name in [row["conversations"][1]["value"]]
    }
    assert unseen
    assert not [name for name in unseen if name in text]
    for part in ("<mask:", "<objects>", "<p>", "Segment <obj", "What is <obj"):
        assert part in text


def test_they_are_added_to_a_set_once_and_of_this_version_alone(toy, tmp_path):
    path = toy / "annotations" / "val_seen_masks.jsonl"
    before = path.stat().st_mtime_ns
    write_mask_questions(toy)
    assert path.stat().st_mtime_ns == before
    assert (toy / "mask_language_model" / "config.json").is_file()
    with pytest.raises(DataError, match="make the set first"):
        write_mask_questions(tmp_path)


def test_masks_do_not_change_what_is_drawn(tmp_path, toy):
    other = generate(tmp_path / "toy", ToySettings(train=12, val=16, photographs=False))
    for name in ("train/000003.jpg", "val_unseen/000004.jpg"):
        assert (other / "images" / name).read_bytes() == (toy / "images" / name).read_bytes()
