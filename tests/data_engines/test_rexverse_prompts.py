"""What the Rexverse engine takes of whatever models say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.data_engines.object_words import distinct, phrases_of
from llmdet.data_engines.questions import RejectedAnswerError
from llmdet.data_engines.rexverse_prompts import (
    accepted_dialogue,
    accepted_verdict,
    accepted_yes_or_no,
    ground,
)
from llmdet.prompts.objects import ObjectGrammar

#: Texts made of what the readers look for, and of anything else.
PIECES = st.one_of(
    st.sampled_from(
        ["Q:", "A:", "\n", "[", "]", "(0)", "(1, 2)", "(9)", "a red car", "Match: yes", "no",
         "<obj0>", "Expression:", "()", "( ,)", "the ", "two dogs", ".", "<", "background", "7"]
    ),
    st.text(max_size=8),
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=25).map("".join)


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("A man in a red hat holds two brown dogs.", ["man", "red hat", "brown dogs"]),
        ("The dog and the dog are in the background.", ["dog"]),
        ("In the foreground of the image there is a group of people.", ["people"]),
        ("It is so.", []),
        ("", []),
    ],
)
def test_phrases_name_things_without_their_articles(caption, phrases) -> None:
    found = distinct(phrases_of(caption), 10)
    assert [one.text for one in found] == phrases
    assert [caption[slice(*one.span)] for one in found] == phrases
    assert distinct(phrases_of(caption), 1) == found[:1]


@given(TEXTS)
def test_phrases_of_any_text_lie_in_it_in_order_and_come_once(text) -> None:
    found = distinct(phrases_of(text), 5)
    assert [text[slice(*one.span)] for one in found] == [one.text for one in found]
    ends = [place for one in found for place in one.span]
    assert ends == sorted(ends)
    assert len({one.text.casefold() for one in found}) == len(found) <= 5
    assert not any(set(one.text) & set("<>[]") for one in found)


@pytest.mark.parametrize(
    ("answer", "expression"),
    [
        ("Match: yes\nExpression: the red car with open doors", "the red car with open doors"),
        ('**Match:** Yes.\n**Expression:** "A dog that runs off."', "A dog that runs off"),
        ("Match: no\nExpression: none", ""),
        ("match: NO", ""),
    ],
)  # fmt: skip
def test_a_verdict_is_read(answer, expression) -> None:
    assert accepted_verdict(answer, 5, 10) == expression


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("Yes, it is a car.", "without a verdict"),
        ("Match: yes", "empty"),
        ("Match: yes\nExpression: a car", "too short"),
        ("Match: yes\nExpression: " + "car " * 11, "too long"),
        ("Match: yes\nExpression: the car <obj1> with open doors", "holds a mark"),
        ("Match: yes\nExpression: the car [0] with open doors", "holds a mark"),
        ("Match: yes\nExpression: I am sorry but I cannot see", "refused"),
    ],
)
def test_a_verdict_that_is_none_is_asked_for_again(answer, fault) -> None:
    with pytest.raises(RejectedAnswerError, match=fault):
        accepted_verdict(answer, 5, 10)


def test_yes_and_no_are_read() -> None:
    assert accepted_yes_or_no("**Yes**, both.")
    assert not accepted_yes_or_no("no")
    for answer in ("", "Perhaps yes", "7"):
        with pytest.raises(RejectedAnswerError, match="neither yes nor no"):
            accepted_yes_or_no(answer)


DIALOGUE = """Sure:
Q: What stands there?
A: The [red car](0) stands beside
[two dogs](2, 1).
Q: Is there a [cat](0)?
A: No, only [a dog](1).
Q: And what else?
A: Nothing.
Q: How many?
A: [Seven](7)
Q: Who barks?
A: [One dog](1)."""


def test_pairs_that_name_objects_are_kept_and_the_others_left_out() -> None:
    red_car = "<ground>red car</ground><objects><obj0></objects>"
    dogs = "<ground>two dogs</ground><objects><obj1><obj2></objects>"
    assert accepted_dialogue(DIALOGUE, 3, 5) == [
        ("What stands there?", f"The {red_car} stands beside {dogs}."),
        ("Who barks?", "<ground>One dog</ground><objects><obj1></objects>."),
    ]
    assert len(accepted_dialogue(DIALOGUE, 3, 1)) == 1
    with pytest.raises(RejectedAnswerError, match="without a grounded"):
        accepted_dialogue(DIALOGUE, 0, 5)


@given(TEXTS, st.integers(0, 3), st.integers(1, 3))
def test_whatever_is_said_names_objects_that_there_are_or_is_rejected(text, objects, most) -> None:
    grammar = ObjectGrammar()
    try:
        pairs = accepted_dialogue(text, objects, most)
    except RejectedAnswerError:
        pairs = []
    grounded = [said for _, said in pairs]
    if one := ground(text, objects):
        grounded.append(one)
    assert len(pairs) <= most
    for said in grounded:
        found = grammar.parse(said, objects).phrases
        assert found
        named = {index for phrase in grammar.parse(said).phrases for index in phrase.indices}
        assert max(named) < objects
    for question, _ in pairs:
        assert question.strip()
        assert not set(question) & set("<>[]")
    try:
        expression = accepted_verdict(text, 1, 10)
    except RejectedAnswerError:
        return
    assert not set(expression) & set("<>[]")
    assert len(expression.split()) <= 10
