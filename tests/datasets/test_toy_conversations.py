"""Questions about regions of the toy set: true answers, and none that gives another away."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llmdet.datasets.rows import read_row
from llmdet.datasets.toy import ToySettings, generate
from llmdet.datasets.toy.__main__ import main
from llmdet.datasets.toy.captions import relation
from llmdet.datasets.toy.conversations import (
    Objects,
    attribute_questions,
    choose_questions,
    classify_questions,
    exist_questions,
    find_questions,
    relate_questions,
    training_rows,
    write_region_questions,
)
from llmdet.datasets.toy.models import write_region_language_model
from llmdet.datasets.toy.vocabulary import HELD_OUT_NAMES, SEEN, Kind
from llmdet.errors import DataError

RED_STAR, BLUE_RING = Kind("red", "star"), Kind("blue", "ring")
OBJECTS = Objects(
    kinds=(RED_STAR, BLUE_RING, BLUE_RING),
    boxes=((2, 2, 30, 30), (90, 4, 118, 32), (6, 92, 34, 120)),
    size=(120, 124),
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def row_of(objects):
    instances = [
        {"bbox": list(box), "label": 0, "category": kind.name}
        for kind, box in zip(objects.kinds, objects.boxes, strict=True)
    ]
    width, height = objects.size
    size = {"filename": "a.jpg", "height": height, "width": width}
    return {**size, "detection": {"instances": instances}}


def test_objects_are_named_by_their_kinds(rng):
    asked = classify_questions(OBJECTS)
    assert [question.answer for question in asked] == ["star, red", "ring, blue", "ring, blue"]
    assert [question.unseen for question in asked] == [True, False, False]


def test_one_of_two_shapes_in_two_colours_is_right(rng):
    for question, kind in zip(choose_questions(OBJECTS, rng), OBJECTS.kinds, strict=True):
        listed = question.text.removeprefix("Is <region> a ").removesuffix("?")
        parts = listed.replace(" or ", "; ").split("; ")
        options = [Kind(*part.split(", ")[::-1]) for part in parts]
        assert len(set(options)) == 4
        assert question.answer == f"{kind.shape}, {kind.colour}"
        assert {sum(a.colour == b.colour for b in options) for a in options} == {2}
        assert {sum(a.shape == b.shape for b in options) for a in options} == {2}
        assert set(options) - {kind} <= set(SEEN)


def test_shapes_and_colours_are_there_as_often_as_not(rng):
    asked = {question.text: question.answer for question in attribute_questions(OBJECTS, rng)}
    assert list(asked.values()).count("yes") == list(asked.values()).count("no") == 4
    present = [text for text, answer in asked.items() if answer == "yes"]
    assert present == [f"Is there a {word}?" for word in ("ring", "star", "blue", "red")]


def test_as_many_kinds_are_there_as_are_not(rng):
    asked = exist_questions(OBJECTS, rng)
    assert [question.answer for question in asked] == ["yes", "yes", "no", "no"]
    assert {question.kind for question in asked if question.answer == "yes"} == {
        RED_STAR,
        BLUE_RING,
    }
    absent = [question.kind for question in asked if question.answer == "no"]
    assert not set(absent) & set(OBJECTS.kinds)
    assert set(absent) <= set(SEEN)


def test_a_word_that_one_object_alone_has_stands_for_it():
    asked = {question.text: question.answer for question in find_questions(OBJECTS)}
    assert asked == {"What colour is the star?": "red", "What shape is the red one?": "star"}


def test_relations_are_those_of_the_boxes(rng):
    asked = relate_questions(OBJECTS)
    assert {(question.regions, question.answer) for question in asked} >= {
        ((OBJECTS.boxes[0], OBJECTS.boxes[1]), "left of"),
        ((OBJECTS.boxes[1], OBJECTS.boxes[0]), "right of"),
        ((OBJECTS.boxes[0], OBJECTS.boxes[2]), "above"),
    }
    assert all(relation(*question.regions) == question.answer for question in asked)


def test_no_conversation_says_of_an_object_twice_what_it_is(rng):
    rows = list(training_rows(row_of(OBJECTS), rng))
    for row in rows:
        said = [turn["value"].removeprefix("<image>\n") for turn in row["conversations"]]
        assert sum(text.startswith("What") for text in said) <= len(OBJECTS.kinds)
        kinds = {question.split()[0] for question in said[::2]}
        assert kinds in ({"What", "Where"}, {"Is"}, {"Is", "Where"})
        named = [text for text in said if "<region> a" in text]
        assert not (named and any(text.startswith("Is there") for text in said))
        assert len(said) <= 24
        assert [turn["from"] for turn in row["conversations"][:2]] == ["human", "gpt"]
        assert read_row(row, "here").conversation is not None
    starts = [row["conversations"][0]["value"] for row in rows]
    assert all(text.startswith("<image>\n") for text in starts)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    settings = ToySettings(seed=3, train=30, val=8, photographs=False)
    folder = generate(tmp_path_factory.mktemp("toy"), settings)
    write_region_questions(folder)
    return folder


def questions_of(toy, split):
    path = toy / "annotations" / f"{split}_regions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_never_speaks_of_unseen_combinations(toy):
    text = json.dumps(questions_of(toy, "train"))
    assert not [name for name in HELD_OUT_NAMES if name in text]
    assert not any(row["unseen"] for row in questions_of(toy, "val_seen"))
    unseen = [row for row in questions_of(toy, "val_unseen") if row["unseen"]]
    assert {row["task"] for row in unseen} == {"classify", "choose", "exist"}


def test_questions_of_a_test_stand_alone_and_are_the_same_again(toy, tmp_path):
    rows = questions_of(toy, "val_seen")
    assert {len(row["conversations"]) for row in rows} == {2}
    path = toy / "annotations" / "val_seen_regions.jsonl"
    before = path.read_text()
    path.unlink()
    write_region_questions(toy)
    assert path.read_text() == before
    with pytest.raises(DataError, match="make the set first"):
        write_region_questions(tmp_path)


def test_the_language_model_knows_the_words_of_the_questions(toy):
    from transformers import AutoTokenizer

    write_region_language_model(toy)
    tokenizer = AutoTokenizer.from_pretrained(toy / "region_language_model")
    assert len(tokenizer("What colour is")["input_ids"]) == 3


def test_the_command_line_writes_them_too(tmp_path):
    options = ["--train", "3", "--val", "8", "--no-photographs", "--regions"]
    main([str(tmp_path / "toy"), *options])
    assert (tmp_path / "toy" / "annotations" / "train_regions.jsonl").is_file()
    assert (tmp_path / "toy" / "region_language_model" / "config.json").is_file()
