"""Words that have masks: as rows write them, as models say them, as they are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.errors import ConfigError
from llmdet.prompts.conversation import Turn
from llmdet.prompts.masks import (
    MaskGrammar,
    ask_as_glamm,
    marked_regions,
    read_as_glamm,
    splice_masks,
)

GRAMMAR = MaskGrammar()


def test_rows_are_written_with_the_models_tokens():
    row = "<p>a man</p><mask:2> walks <p> a dog </p> <mask>."
    assert GRAMMAR(row) == "<p> a man </p> [SEG] walks <p> a dog </p> [SEG]."
    other = MaskGrammar("<SEG>", "<g>", "</g>")
    assert other(row) == "<g> a man </g> <SEG> walks <g> a dog </g> <SEG>."
    assert GRAMMAR("Sure, it is <mask>.") == "Sure, it is [SEG]."


def test_what_was_said_is_taken_apart():
    said = GRAMMAR.parse("<p> a man </p> [SEG] walks <p> a dog </p> [SEG] . It is [SEG].")
    assert said.phrases == ("a man", "a dog", "")
    assert said.caption == "a man walks a dog. It is."


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("<p> a man [SEG]", ("a man",)),  # never closed
        ("</p> [SEG] </p>", ("",)),
        ("<p> one <p> two </p> [SEG]", ("two",)),
        ("<p> one </p> <p> two </p>", ()),
        ("[SEG][SEG]", ("", "")),
        ("", ()),
    ],
)
def test_malformed_answers_are_read_as_far_as_they_go(text, phrases):
    assert GRAMMAR.parse(text).phrases == phrases


@given(st.lists(st.sampled_from([*GRAMMAR.tokens, " ", "dog", ".", "<mask>", "é"])).map("".join))
def test_there_is_a_phrase_for_each_mask_whatever_is_said(text):
    said = GRAMMAR.parse(text)
    assert len(said.phrases) == text.count("[SEG]")
    assert not any(token in said.caption for token in GRAMMAR.tokens)


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(-3, 33), st.integers(-3, 33))))
def test_a_spliced_caption_says_the_same_words_and_names_each_phrase_once(caption, spans):
    caption = caption.replace("<", "").replace("[", "")
    text, left_out = splice_masks(caption, spans)
    kept = sorted(set(range(len(spans))) - set(left_out))
    assert sorted(marked_regions([Turn("assistant", text, learned=True)])) == kept
    for number in kept:
        assert f"<p>{caption[slice(*spans[number])].strip()}</p><mask:{number}>" in text
    if not kept:
        assert text == caption


def test_phrases_that_overlap_are_left_out_and_the_longer_of_two_stays():
    text, left_out = splice_masks("a red car left", [(2, 9), (0, 9), (10, 14)])
    assert text == "<p>a red car</p><mask:1> <p>left</p><mask:2>"
    assert left_out == (0,)


def test_regions_are_named_by_learned_turns_in_their_order():
    turns = [
        Turn("assistant", "<mask:4> is not learned"),
        Turn("user", "And <region:1>?"),
        Turn("assistant", "<mask:2> and <mask>", learned=True),
    ]
    assert marked_regions(turns) == (2, 3)


def test_marks_must_differ():
    with pytest.raises(ConfigError, match="three different marks"):
        MaskGrammar("<p>")


def test_answers_are_read_as_glamms_evaluation_reads_them_on_request():
    said = "USER: q ASSISTANT: 'A <p> dog\ngie </p> [SEG] is < or > <p> a cat.</p>'</s>"
    assert read_as_glamm(said) == ("A doggie is a cat.", ("doggie", "a cat."))
    assert ask_as_glamm("a & b &lt;c&gt; &amp; <d>") == "a &amp; b <c> &amp; <d>"
