"""Descriptions of toy scenes say what is true, and the files of the set agree with each other."""

import json

import numpy as np
import pytest

from llmdet.datasets.toy.agent_expressions import facts_of, is_true
from llmdet.datasets.toy.agent_world import sample_world
from llmdet.datasets.toy.descriptions import (
    GROUPS,
    Description,
    false_description,
    true_descriptions,
)
from llmdet.datasets.toy.real_data import write_training_rows, write_validation
from llmdet.datasets.toy.scene import Item, Scene
from llmdet.datasets.toy.vocabulary import Kind


def item(colour, shape, x, y):
    corners = np.array([[x, y], [x + 10, y], [x + 10, y + 10], [x, y + 10]], float)
    return Item(Kind(colour, shape), "small", (corners,))


#: A red circle left of a blue square, below them another red circle and a green circle.
SCENE = Scene(
    100,
    100,
    "plain",
    (
        item("red", "circle", 5, 5),
        item("blue", "square", 60, 5),
        item("red", "circle", 5, 70),
        item("green", "circle", 60, 75),
    ),
)


@pytest.mark.parametrize(
    ("description", "text", "matches"),
    [
        (Description("name", "red", "circle"), "red circle", (0, 2)),
        (Description("negation", "red", "circle"), "circle that is not red", (3,)),
        (Description("negation", "blue", "square"), "square that is not blue", ()),
        (Description("counting", "red", "circle", number=2), "exactly two red circles", (0, 2)),
        (Description("counting", "red", "circle", number=1), "exactly one red circle", ()),
        (
            Description("relation", "red", "circle", "left of", ("blue", "square")),
            "red circle left of a blue square",
            (0,),
        ),
        (
            Description("relation", "blue", "square", "left of", ("red", "circle")),
            "blue square left of a red circle",
            (),
        ),
    ],
)
def test_a_description_is_true_of_what_it_says(description, text, matches):
    assert str(description) == text
    assert description.matches(SCENE) == matches


def test_true_descriptions_are_of_every_group_and_true():
    found = true_descriptions(SCENE)
    assert {one.group for one in found} == set(GROUPS)
    assert all(one.matches(SCENE) for one in found)
    assert len(found) == len(set(map(str, found)))


def test_a_false_description_differs_in_a_word_and_is_true_of_nothing():
    rng = np.random.default_rng(0)
    for one in true_descriptions(SCENE):
        wrong = false_description(SCENE, one, rng)
        assert wrong is not None
        assert wrong.group == one.group
        assert not wrong.matches(SCENE)


def test_rows_of_one_world_differ_in_their_expressions_alone(tmp_path):
    samples = sample_world(12, seed=3)
    files = {}
    for kind, said in (
        ("true", {n: sample.truth for n, sample in enumerate(samples)}),
        ("raw", {n: sample.expression for n, sample in enumerate(samples)}),
        ("refined", {n: sample.truth for n, sample in enumerate(samples) if n % 2}),
    ):
        write_training_rows(tmp_path / f"{kind}.jsonl", samples, said)
        rows = map(json.loads, (tmp_path / f"{kind}.jsonl").read_text().splitlines())
        files[kind] = list(rows)
    for sample, true, raw in zip(samples, files["true"], files["raw"], strict=True):
        (right,), (said,) = true["pairs"].pop("llm"), raw["pairs"].pop("llm")
        assert true == raw
        assert set(true["pairs"]) == {"name", "negation", "counting"}
        assert right["positive_expressions"] == [sample.truth]
        assert said["positive_expressions"] == [sample.expression]
        assert set(said["negative_expressions"]).isdisjoint(said["positive_expressions"])
        for text in right["negative_expressions"]:
            everything = range(len(sample.scene.items))
            assert not any(is_true(text, facts_of(sample.scene, i)) for i in everything)
    assert ["llm" in row["pairs"] for row in files["refined"]] == [False, True] * 6


def test_the_files_of_both_benchmarks_hold_the_same_boxes(tmp_path):
    write_validation(tmp_path, 4)
    everything = json.loads((tmp_path / "val_omnilabel.json").read_text())
    boxes = 0
    for group in GROUPS:
        omnilabel, d3 = (
            json.loads((tmp_path / f"val_{group}_{name}.json").read_text())
            for name in ("omnilabel", "d3")
        )
        texts = {one["id"]: one["text"] for one in omnilabel["descriptions"]}
        assert texts == {one["id"]: one["name"] for one in d3["categories"]}
        found, same = omnilabel["annotations"], d3["annotations"]
        assert [one["bbox"] for one in found] == [one["bbox"] for one in same]
        assert [one["description_ids"] for one in found] == [[one["category_id"]] for one in same]
        boxes += len(found)
        # Some of what is asked for is not there.
        asked = {(n, one["id"]) for one in omnilabel["descriptions"] for n in one["image_ids"]}
        assert {(one["image_id"], one["category_id"]) for one in same} < asked
    assert len(everything["annotations"]) == boxes
    assert len(list((tmp_path / "val").iterdir())) == 4
