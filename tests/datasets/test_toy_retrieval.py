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
from llmdet.datasets.toy.vocabulary import HELD_OUT, SEEN, Kind
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
    thought = "ring<obj1> blue yes, ring<obj2> blue yes. "
    assert answer == f"{thought}The number is 2: {listed}"


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
    assert all(search.turns[1] == f"{search.thought}{ABSENT}" for search in searches)
    nowhere = kind_searches(OBJECTS)[0].phrase.replace("star", "circle")
    (other,) = absent_searches(OBJECTS, rng, [Kind(*nowhere.split())])
    assert other.turns[1] == f"no circle. {ABSENT}"


def test_training_asks_for_every_kind_that_is_there_and_for_a_third_as_many_that_are_not(rng):
    answers = [answer for _, answer in training_turns("kinds", OBJECTS, rng)]
    assert len(answers) == 3 + 1
    assert [answer.endswith(ABSENT) for answer in answers].count(True) == 1
    without = training_turns("kinds", OBJECTS, rng, rejection=False)
    assert not any(answer.endswith(ABSENT) for _, answer in without)


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
        about = [kind for kind in OBJECTS.kinds if kind.shape in (shape, there)]
        assert search.unseen == any(kind in HELD_OUT for kind in about)
    assert not any("the ring" in search.phrase.partition(" of ")[2] for search in searches)


def test_thoughts_judge_every_object_of_the_shape_and_answers_name_those_that_are_meant(rng):
    searches = searches_of(ROW, rng, SEEN)
    for search in searches:
        answer = ObjectGrammar().parse(search.turns[1])
        named = [index for phrase in answer.phrases for index in phrase.indices]
        assert sorted(named) == list(search.objects)
        assert answer.absent == (not search.objects)
        judged = re.findall(r"(\w+)<obj(\d)> [a-z ]+? (yes|no)\b", search.thought)
        assert [int(n) for _, n, verdict in judged if verdict == "yes"] == named
        for shape in {shape for shape, *_ in judged}:
            numbers = [int(n) for other, n, _ in judged if other == shape]
            assert numbers == [n for n, kind in enumerate(OBJECTS.kinds) if kind.shape == shape]
    related = next(search for search in searches if search.task in ("relate", "refuse"))
    reference = related.phrase.rpartition(" ")[2]
    assert related.thought.startswith(reference)


@pytest.mark.parametrize("rejection", [True, False])
def test_training_rows_are_read_and_say_what_is_there(rng, rejection):
    rows = list(training_rows(ROW, rng, rejection))
    assert [row["task"] for row in rows] == list(TRAINED)
    answers = [turn["value"] for row in rows for turn in row["conversations"][1::2]]
    assert any(ABSENT in answer for answer in answers) == rejection
    for row in rows:
        assert len(row["conversations"]) <= 16
        read = read_row(row, "here")
        assert len(read.regions) == 4
        named = {index for turn in read.conversation.turns for index in _indices(turn.text)}
        assert named <= {0, 1, 2, 3}


def test_proposals_stand_among_the_objects_whose_numbers_stay_true(rng):
    box, same = [40.0, 2.0, 60.0, 20.0, 0.7], [3, 2, 30, 30, 0.9]
    orders = set()
    for _ in range(20):
        for row in training_rows(ROW, rng, proposals=[same, box]):
            regions = [tuple(region["bbox"]) for region in row["regions"]]
            assert sorted(regions) == sorted([*OBJECTS.boxes, tuple(box[:4])])
            orders.add(regions.index(tuple(box[:4])))
            kinds = dict(zip(OBJECTS.boxes, OBJECTS.kinds, strict=True))
            for said in (turn["value"] for turn in row["conversations"][1::2]):
                for thought in said.partition("<ground>")[0].split(". "):
                    judged = re.findall(r"(\w+)<obj(\d)> [a-z ]+? (?:yes|no)\b", thought)
                    numbers = [int(number) for _, number in judged]
                    assert numbers == sorted(numbers)
                    assert all(kinds[regions[int(n)]].shape == shape for shape, n in judged)
    assert orders == set(range(5))


def _indices(text):
    return {int(number) for number in re.findall(r"<obj(\d+)>", text)}


def test_objects_are_named_by_their_numbers(rng):
    pairs = dict(training_turns("names", OBJECTS, rng))
    assert pairs["Name <obj0>."] == "star, red"
    assert len(pairs) == 4


def test_sides_are_said_of_all_that_stand_clearly_on_one(rng):
    turns = dict(training_turns("sides", OBJECTS, rng))
    assert len(turns) == 3
    for question, answer in turns.items():
        reference = int(re.search(r"<obj(\d)>", question)[1])
        first, *others = re.findall(r"(\w+)<obj(\d)>(?: ([a-z ]+))?", answer)
        assert first == (OBJECTS.kinds[reference].shape, str(reference), "")
        found = {int(number): side for _, number, side in others}
        sides = {n: relation(box, OBJECTS.boxes[reference]) for n, box in enumerate(OBJECTS.boxes)}
        assert found == {n: side for n, side in sides.items() if side is not None}


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
    assert all({"bbox": [1, 2, 3, 4]} in row["regions"] for row in rows)
    write_retrieval_rows(tmp_path, out)
    assert out.read_text() == first
    with pytest.raises(DataError, match="make the set first"):
        write_retrieval_rows(tmp_path / "nowhere", tmp_path / "others.jsonl")
