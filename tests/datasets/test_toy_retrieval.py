"""Searches in toy images: what is meant, what is not there, and rows that say so."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from llmdet.datasets.rows import read_row
from llmdet.datasets.toy.captions import relation
from llmdet.datasets.toy.conversations import Objects
from llmdet.datasets.toy.retrieval import (
    TRAINED,
    absent_searches,
    conversation_row,
    kind_searches,
    relation_searches,
    searches_of,
    several_searches,
    training_rows,
    training_turns,
    word_searches,
    write_retrieval_rows,
)
from llmdet.datasets.toy.vocabulary import SEEN, Kind
from llmdet.errors import DataError
from llmdet.prompts.objects import ABSENT, ObjectGrammar

RED_STAR, BLUE_RING, GREEN_CROSS = Kind("red", "star"), Kind("blue", "ring"), Kind("green", "cross")
OBJECTS = Objects(
    kinds=(RED_STAR, BLUE_RING, BLUE_RING, GREEN_CROSS),
    boxes=((2, 2, 30, 30), (90, 4, 118, 32), (6, 92, 34, 120), (60, 60, 88, 88)),
    size=(120, 124),
)
ROW = {
    "filename": "a.jpg",
    "height": 124,
    "width": 120,
    "detection": {
        "instances": [
            {"bbox": list(box), "label": 0, "category": kind.name}
            for kind, box in zip(OBJECTS.kinds, OBJECTS.boxes, strict=True)
        ]
    },
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def meant(searches):
    return {search.phrase: search.objects for search in searches}


def test_kinds_mean_all_their_objects():
    found = {"red star": (0,), "blue ring": (1, 2), "green cross": (3,)}
    assert meant(kind_searches(OBJECTS)) == found
    assert [search.unseen for search in kind_searches(OBJECTS)] == [True, False, False]
    question, answer = kind_searches(OBJECTS, "count")[1].turns
    assert question == "Count blue ring."
    listed = "<ground>blue ring</ground><objects><obj1><obj2></objects>"
    assert answer == f"The number is 2: {listed}"


def test_several_kinds_are_answered_one_after_the_other(rng):
    (search,) = several_searches(OBJECTS, rng)
    question, answer = search.turns
    phrases = [phrase.phrase for phrase in ObjectGrammar().parse(answer).phrases]
    assert question == f"Detect {'; '.join(phrases)}."
    assert len(phrases) == 2


def test_what_is_absent_is_not_in_the_image(rng):
    searches = absent_searches(OBJECTS, rng)
    assert len(searches) == 3
    assert not {search.phrase for search in searches} & {kind.name for kind in OBJECTS.kinds}
    assert {search.turns[1] for search in searches} == {ABSENT}


def test_words_alone_are_there_as_often_as_not(rng):
    found = meant(word_searches(OBJECTS, rng))
    assert (found["ring"], found["blue one"]) == ((1, 2), (1, 2))
    assert sorted(map(bool, found.values())) == [False] * 6 + [True] * 6


def test_relations_hold_of_all_that_they_mean_and_of_nothing_else():
    searches = relation_searches(OBJECTS)
    assert {search.task for search in searches} == {"relate", "refuse"}
    for search in searches:
        shape, word, there = re.fullmatch(r"the (\w+) (.+) the (\w+)", search.phrase).groups()
        (reference,) = [n for n, kind in enumerate(OBJECTS.kinds) if kind.shape == there]
        holds = tuple(
            n
            for n, kind in enumerate(OBJECTS.kinds)
            if kind.shape == shape and relation(OBJECTS.boxes[n], OBJECTS.boxes[reference]) == word
        )
        assert search.objects == holds
        assert (search.task == "refuse") == (not holds)
    assert not any("the ring" in search.phrase.partition(" of ")[2] for search in searches)


@pytest.mark.parametrize("rejection", [True, False])
def test_training_rows_are_read_and_say_what_is_there(rng, rejection):
    rows = list(training_rows(ROW, rng, rejection))
    assert [row["task"] for row in rows] == list(TRAINED)
    answers = [turn["value"] for row in rows for turn in row["conversations"][1::2]]
    assert (ABSENT in answers) == rejection
    for row in rows:
        assert len(row["conversations"]) <= 16
        read = read_row(row, "here")
        assert len(read.regions) == 4
        named = {index for turn in read.conversation.turns for index in _indices(turn.text)}
        assert named <= {0, 1, 2, 3}


def _indices(text):
    return {int(number) for number in re.findall(r"<obj(\d+)>", text)}


def test_objects_are_named_by_their_numbers(rng):
    pairs = dict(training_turns("names", OBJECTS, rng))
    assert pairs["Name <obj0>."] == "star, red"
    assert len(pairs) == 4


def test_what_an_image_does_not_have_is_not_asked_of_it(rng):
    alone = Objects((RED_STAR,), OBJECTS.boxes[:1], OBJECTS.size)
    assert training_turns("places", alone, rng) == []
    row = conversation_row(alone, training_turns("kinds", alone, rng), "a.jpg")
    assert row["regions"] == [{"bbox": [2, 2, 30, 30]}]
    assert (row["width"], row["height"]) == (120, 124)


def test_test_searches_ask_for_what_is_there_and_for_what_is_not(rng):
    tasks = {search.task for search in searches_of(ROW, rng, SEEN)}
    assert tasks == {"detect", "several", "absent", "relate", "refuse"}


def test_rows_are_written_once_with_their_proposals(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    (folder / "train_detection.jsonl").write_text(f"{json.dumps(ROW)}\n{json.dumps(ROW)}\n")
    out = tmp_path / "rows.jsonl"
    write_retrieval_rows(tmp_path, out, {"a.jpg": [[1, 2, 3, 4, 0.5]]})
    first = out.read_text()
    rows = [json.loads(line) for line in first.splitlines()]
    assert all(row["proposals"] == [[1, 2, 3, 4, 0.5]] for row in rows)
    write_retrieval_rows(tmp_path, out)
    assert out.read_text() == first
    with pytest.raises(DataError, match="make the set first"):
        write_retrieval_rows(tmp_path / "nowhere", tmp_path / "others.jsonl")
