"""Objects by number: writing answers, and reading whatever was said."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.errors import ConfigError
from llmdet.prompts.conversation import Conversation, Turn
from llmdet.prompts.objects import ABSENT, DELIMITERS, ObjectGrammar, with_candidates

GROUND = ObjectGrammar()
MARKS = [mark for family in DELIMITERS.values() for mark in family]
WORDS = st.text(st.characters(exclude_characters="<>"), min_size=1).filter(str.strip)
#: Pieces that answers are made of, whole and cut, and anything else.
PIECES = st.one_of(
    st.sampled_from([*MARKS, "<obj0>", "<obj7>", "<obj99>", "<obj", "<obj3", "\n", " "]),
    st.integers(0, 10**30).map(lambda number: f"<obj{number}>"),
    st.text(),
)


def indices(answer):
    return {named.phrase: named.indices for named in answer.phrases}


@pytest.mark.parametrize("family", DELIMITERS)
def test_an_answer_names_what_is_there_and_says_what_is_not(family):
    grammar = ObjectGrammar(family, count=8)
    text = grammar.write({"red car": [4, 1], "dog": [], "tree": [0]})
    assert indices(grammar.parse(text)) == {"red car": (1, 4), "tree": (0,)}
    assert not grammar.parse(text).absent
    nothing = grammar.parse(grammar.write({"dog": [], "cat": []}))
    assert nothing.absent
    assert nothing.phrases == ()
    assert grammar.tokens == (*(f"<obj{n}>" for n in range(8)), *DELIMITERS[family])


def test_answers_of_one_family_become_those_of_the_other():
    text = GROUND.write({"dog": [3]})
    assert text == "<ground>dog</ground><objects><obj3></objects>"
    assert ObjectGrammar("g")(text) == "<g>dog</g><o><obj3></o>"
    assert GROUND(ObjectGrammar("g")(text)) == text
    own = ObjectGrammar(("[", "]", "(", ")"))
    assert indices(own.parse(own(text))) == {"dog": (3,)}


@given(
    st.dictionaries(
        WORDS.map(str.strip), st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1
    ),
    st.sampled_from(list(DELIMITERS)),
)
def test_what_was_written_is_read(objects, family):
    grammar = ObjectGrammar(family)
    read = indices(grammar.parse(grammar.write(objects)))
    assert read == {phrase: tuple(sorted(set(found))) for phrase, found in objects.items()}


@given(st.lists(PIECES).map("".join), st.integers(0, 100))
def test_whatever_a_model_says_can_be_read(text, candidates):
    answer = GROUND.parse(text, candidates)
    assert str(answer) == text
    for named in answer.phrases:
        assert named.phrase.strip() == named.phrase != ""
        assert named.indices
        assert len(set(named.indices)) == len(named.indices)
        assert max(named.indices) < candidates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A <g> dog </g> <o> <obj1> <obj1> </o>.", {"dog": (1,)}),
        ("<ground>dog</ground><objects><obj1>", {"dog": (1,)}),  # cut
        ("<ground>dog<objects><obj1></objects>", {"dog": (1,)}),
        ("<ground>dog</ground>, at <objects><obj1></objects>", {}),
        ("<ground>dog</ground><objects><obj5></objects>", {}),  # of five candidates
        ("<ground>a<ground>b</ground><objects><obj0></objects>", {"b": (0,)}),
        (
            "<g>a</g><o><obj0></o><g>a</g><o><obj1></o><g>b</g><o><obj0><g>c</g><o><obj2></o>",
            {"a": (0,), "b": (0,), "c": (2,)},
        ),
        ("<obj1> and <obj2>", {}),
    ],
)
def test_answers_that_are_not_quite_right_are_read_as_far_as_they_are(text, expected):
    assert indices(GROUND.parse(text, 5)) == expected


def test_a_refusal_may_stand_in_a_sentence():
    assert GROUND.parse(f"Sorry: {ABSENT.lower()} Look again.").absent


def test_candidates_stand_in_front_of_the_first_question():
    turns = (
        Turn("system", "Be brief."),
        Turn("user", "<image>\nIs <region:1> left of <region:0>?"),
        Turn("assistant", "<obj1> is.", learned=True),
    )
    written = with_candidates(Conversation(turns), 2)
    question = "<image>\n<obj0><region:0><obj1><region:1>\nIs <obj1> left of <obj0>?"
    assert [turn.text for turn in written.turns] == ["Be brief.", question, "<obj1> is."]
    assert written.turns[2].learned
    bare = Conversation((Turn("user", "What is it?"),))
    assert with_candidates(bare, 0).turns[0].text == "<image>\nWhat is it?"
    inside = Conversation((Turn("user", "Look at <image>."),))
    expected = "<obj0><region:0>\nLook at <image>."
    assert with_candidates(inside, 1).turns[0].text == expected


def test_workers_are_sent_an_equal_grammar():
    assert pickle.loads(pickle.dumps(GROUND)) == GROUND
    assert ObjectGrammar("g") != GROUND


@pytest.mark.parametrize("settings", [{"delimiters": "<o>"}, {"delimiters": "aabc"}, {"count": 0}])
def test_a_grammar_that_cannot_be_is_refused(settings):
    with pytest.raises(ConfigError):
        ObjectGrammar(**settings)
