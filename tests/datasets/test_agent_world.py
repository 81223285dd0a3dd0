"""The world in which the agent is measured: its truth, its six faults, and an oracle that looks."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from llmdet.chat import ask
from llmdet.data_engines.image_edits import ImageEdit, edited_pictures
from llmdet.datasets.toy.agent_expressions import (
    ASPECTS,
    BREAKS,
    Expression,
    Facts,
    facts_of,
    is_true,
)
from llmdet.datasets.toy.agent_eye import look
from llmdet.datasets.toy.agent_models import (
    POLICIES,
    oracle,
    read_facts,
    reflector,
    rewriter,
    sentences,
)
from llmdet.datasets.toy.agent_world import sample_world
from llmdet.datasets.toy.scene import draw_scene
from llmdet.datasets.toy.vocabulary import Kind

ALL = "Describe it."


@pytest.fixture(scope="module")
def world():
    return sample_world(60)


@pytest.fixture(scope="module")
def pictures(world):
    return [
        Image.fromarray(draw_scene(sample.scene, np.random.default_rng(i)))
        for i, sample in enumerate(world)
    ]


def answer(picture: Image.Image, box, edit: ImageEdit, question: str = ALL) -> str:
    [shown] = edited_pictures(picture, [box], edit)
    return oracle(ask(f"Look.\n\nCategory: shape\nQuestion: {question}", shown))


def items(world, pictures):
    for sample, picture in zip(world, pictures, strict=True):
        yield picture, sample.scene.items[sample.index], sample.facts


def test_expressions_are_true_unless_they_are_broken_and_every_way_occurs(world):
    assert {sample.broken for sample in world} == {"", *BREAKS}
    for sample in world:
        assert is_true(sample.truth, sample.facts)
        assert is_true(sample.expression, sample.facts) == (not sample.broken)


def test_a_fault_is_where_its_name_says(world):
    for sample in world:
        if sample.broken in ASPECTS:
            assert sample.facts.wrong(Expression.parse(sample.expression)) == (sample.broken,)
        elif sample.broken:
            others = range(len(sample.scene.items))
            facts = [facts_of(sample.scene, i) for i in others if i != sample.index]
            assert any(is_true(sample.expression, one) for one in facts)


def test_equal_seeds_give_equal_worlds(world):
    again = sample_world(60)
    assert [(s.expression, s.caption) for s in again] == [(s.expression, s.caption) for s in world]
    assert [s.expression for s in sample_world(60, seed=1)] != [s.expression for s in world]


@pytest.mark.parametrize(
    "text",
    [
        "red circle",
        "small orange star in the upper left",
        "blue ring left of an orange square",
        "large white cross at the bottom, above a black triangle",
    ],
)
def test_expressions_are_read_as_they_are_written(text):
    assert str(Expression.parse(text)) == text


def test_what_is_no_expression_of_the_world_is_not_true():
    facts = Facts("red", "circle", "small", "on the left")
    assert is_true("red circle", facts)
    assert not is_true("the red circle that I saw", facts)
    assert not is_true("red circle left of a blue ring", facts)


def test_captions_are_true_and_not_all_that_is(world):
    told = Counter()
    for sample in world:
        known = read_facts(sample.caption)
        for aspect in ASPECTS[:-1]:
            value = getattr(known, aspect)
            assert value in (None, getattr(sample.facts, aspect))
            told[aspect] += value is not None
        assert known.relations <= sample.facts.relations
    assert all(0.1 < told[aspect] / len(world) < 0.7 for aspect in ASPECTS[:-1])


def test_the_oracle_sees_colour_and_shape_in_a_crop_and_nothing_else(world, pictures):
    for picture, item, _ in items(world, pictures):
        said = read_facts(answer(picture, item.box, ImageEdit.CROP))
        assert said == Facts(item.kind.colour, item.kind.shape)


def test_an_extended_crop_shows_whole_neighbours_too(world, pictures):
    related = 0
    for picture, item, facts in items(world, pictures):
        said = read_facts(answer(picture, item.box, ImageEdit.EXTENDED_CROP))
        assert (said.colour, said.shape) == (item.kind.colour, item.kind.shape)
        assert said.size is said.place is None
        assert said.relations <= facts.relations
        related += bool(said.relations)
    assert related > 10


def test_the_whole_picture_shows_place_and_size_and_no_shape_of_small_things(world, pictures):
    counts = Counter()
    for picture, item, facts in items(world, pictures):
        said = read_facts(answer(picture, item.box, ImageEdit.HIGHLIGHT))
        assert said.colour == item.kind.colour
        assert said.shape in (None, item.kind.shape)
        counts["all"] += 1
        counts["size"] += said.size == facts.size
        counts["place"] += said.place == facts.place
        counts["without shape"] += said.shape is None
        counts["false relation"] += not said.relations <= facts.relations
    # Near the line between two words a pixel decides.
    assert counts["size"] > 0.97 * counts["all"]
    assert counts["place"] > 0.97 * counts["all"]
    assert counts["false relation"] < 0.03 * counts["all"]
    assert 0.2 < counts["without shape"] / counts["all"] < 0.7


def test_the_oracle_tells_what_it_is_shown_and_not_what_the_scene_holds(world, pictures):
    """Painted over in the shown picture, another object is seen; of a bare patch, none."""
    sample, picture = next(
        (s, p) for s, p in zip(world, pictures, strict=True) if len(s.scene.items) > 2
    )
    chosen, other, *_ = sample.scene.items
    pasted = picture.copy()
    box = tuple(map(round, chosen.box))
    pasted.paste(
        picture.crop(tuple(map(round, other.box))).resize((box[2] - box[0], box[3] - box[1])), box
    )
    said = read_facts(answer(pasted, chosen.box, ImageEdit.CROP))
    assert said.colour == other.kind.colour
    bare = Image.new("RGB", (40, 40), (130, 130, 130))
    assert "does not show" in oracle(ask("Look.\n\nQuestion: What colour?", bare))
    assert look(np.asarray(bare)).things == ()


def test_the_oracle_answers_what_it_is_asked(world, pictures):
    sample, picture = world[0], pictures[0]
    box = sample.scene.items[sample.index].box
    said = answer(picture, box, ImageEdit.CROP, "What is its colour?")
    assert said == f"It is {sample.facts.colour}."
    assert answer(picture, box, ImageEdit.CROP, "Where is it?") == (
        "The picture does not show its place."
    )


def reflection(expression: str, *known: str) -> str:
    lines = [*(f"Known: {line}" for line in known), f"Expression: {expression}"]
    return reflector(ask("\n".join(["Compare.", "", *lines])))


def test_the_reflector_compares_with_what_was_said():
    red = "What is its colour? - It is red."
    assert reflection("red circle", red).endswith("Conclusion: uncertain")
    assert "Not known: shape." in reflection("red circle", red)
    assert "Wrong: colour. Not known: shape." in reflection("blue circle", red)
    assert reflection("red circle", red, "What shape? - It is a circle.").endswith("right")
    in_vain = reflection("red circle on the left", "Where is it? - The picture does not show it.")
    assert "Not known: colour, shape. Not known after a look: place." in in_vain


def rewritten(error_rate: float, text: str, *known: str, seed: int = 0) -> Expression:
    lines = [*(f"Known: {line}" for line in known), f"Expression: {text}"]
    said = rewriter(error_rate)(ask("\n".join(["Write.", "", *lines]), seed=seed))
    return Expression.parse(said.partition("New expression: ")[2].strip("'"))


def test_a_rewriter_without_errors_replaces_what_is_wrong_and_keeps_the_rest():
    text = "small blue circle on the left, above a red star"
    known = "a - It is red. It is on the right. It is below a red star."
    assert str(rewritten(0.0, text, known)) == "small red circle on the right, below a red star"


def test_a_rewriter_errs_as_often_as_is_set():
    seeds = range(200)
    wrong = [
        rewritten(0.3, "red circle", seed=seed) != Expression("red", "circle") for seed in seeds
    ]
    assert 0.2 < np.mean(wrong) < 0.4
    assert all(rewritten(1.0, "red circle", seed=s) != Expression("red", "circle") for s in seeds)


def test_facts_are_read_as_they_are_said():
    facts = Facts(
        "orange", "star", "small", "at the top", frozenset({("above", Kind("red", "ring"))})
    )
    assert read_facts(sentences(facts)) == facts
    assert read_facts(sentences(replace(facts, relations=frozenset()))).relations == frozenset()


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_answer_with_plans(policy):
    from llmdet.data_engines.real_lod_answers import read_plan

    feedback = "Wrong: colour. Not known: size, relation. The expression is wrong."
    plan = read_plan(POLICIES[policy](ask(f"Plan:\n\nFeedback: {feedback}")))
    if policy == "scripted":
        assert [a.edit for a in plan.actions] == [
            ImageEdit.EXTENDED_CROP,
            ImageEdit.HIGHLIGHT,
            None,
        ]
