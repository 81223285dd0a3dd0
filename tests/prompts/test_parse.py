"""From mmdet's fields to prompts."""

from typing import Any

import pytest

from llmdet.errors import ConfigError, DataError
from llmdet.prompts import Classes, Expression, Sentence, Spans, parse_prompt

SENTENCE = "A brown dog is running on the green grass next to a red ball."


@pytest.mark.parametrize(
    ("text", "settings", "prompt"),
    [
        ("apple .", {"custom_entities": True}, Classes(("apple",))),
        ("cat . dog", {"custom_entities": True}, Classes(("cat", "dog"))),
        (["St. Bernard", "dog"], {}, Classes(("St. Bernard", "dog"))),
        (("apple", "pear_(fruit)"), {}, Classes(("apple", "pear"))),
        ({"1": "dog", "0": "cat"}, {}, Classes(("cat", "dog"))),
        ("There are many apples here.", {}, Sentence("There are many apples here.")),
        ("red apple", {"tokens_positive": -1}, Expression("red apple")),
        ("red apple", {"tokens_positive": [[[4, 9]]]}, Spans("red apple", (((4, 9),),))),
        ("red apple", {"tokens_positive": {0: [[4, 9]]}}, Spans("red apple", (((4, 9),),))),
        ("red apple", {"tokens_positive": {}}, Spans("red apple", ())),
    ],
)
def test_every_way_to_ask_has_its_prompt(text: Any, settings: dict[str, Any], prompt: Any) -> None:
    assert parse_prompt(text, **settings) == prompt


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        (" . ", {"custom_entities": True}),
        ([], {}),
        ({}, {}),
        ("  ", {"tokens_positive": -1}),
        (".", {"tokens_positive": [[[0, 1]]]}),
        ("a dog", {"tokens_positive": 1}),
        (["a", "dog"], {"tokens_positive": -1}),
    ],
)
def test_nothing_to_look_for_is_refused(text: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        parse_prompt(text, **settings)


def test_training_labels_may_have_holes_and_be_written_as_strings() -> None:
    prompt = parse_prompt(SENTENCE, tokens_positive={"3": [[26, 41]], 1: [[0, 11]]})
    assert prompt == Spans(SENTENCE, ((), ((0, 11),), (), ((26, 41),)))


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([], "is empty"),
        ([[]], "entity 0"),
        ([[[0, 5]], []], "entity 1"),
        ({2: []}, "entity 2"),
        ({-1: [[0, 5]]}, "label -1"),
        ([[0, 5]], r"0 is no \[start, end\) span"),
        ([0, 5], "entity 0 is 0"),
        ([[[5, 5]]], r"\[5, 5\]"),
        ([[[-1, 5]]], r"\[-1, 5\]"),
        ([[[50, 62]]], r"\[50, 62\] is no .* of the 61 characters"),
        ([[[0, 3, 5]]], r"\[0, 3, 5\]"),
    ],
)
def test_spans_that_point_nowhere_are_refused(spans: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_prompt(SENTENCE, tokens_positive=spans)


def test_a_label_map_with_a_hole_is_refused() -> None:
    with pytest.raises(DataError, match="has no label '1'"):
        parse_prompt({"0": "cat", "2": "dog"})


def test_a_class_may_be_written_otherwise_under_any_spelling_of_its_name() -> None:
    how = {"fire_hydrant": {"prefix": "red ", "name": "hydrant"}, "zebra": {"suffix": " herd"}}
    assert parse_prompt(["cat", "fire hydrant"], caption_prompt=how) == Classes(
        ("cat", "fire hydrant"), (("", "cat", ""), ("red ", "hydrant", ""))
    )
    with pytest.raises(ConfigError, match="'sufix'"):
        parse_prompt(["dog"], caption_prompt={"dog": {"sufix": " x"}})


def test_equal_prompts_are_equal_keys() -> None:
    assert hash(parse_prompt(["cat", "dog"])) == hash(parse_prompt(("cat", "dog")))
    assert parse_prompt(["cat"]) != parse_prompt("cat")
