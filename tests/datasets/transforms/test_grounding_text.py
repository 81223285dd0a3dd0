"""A caption becomes a prompt whose phrases stay where they were."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.datasets.transforms.grounding_text import grounding_text


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("A Red Dog.", "a red dog."),
        ("A red dog", "a red dog. "),
        ("  a dog. ", "a dog."),
        ("İ red dog", "İ red dog. "),  # lower-cased it would grow by a character
    ],
)
def test_caption_is_lower_cased_and_closed(tokenizer, caption, text):
    assert grounding_text(caption, {}, tokenizer, 64).text == text


def test_spans_name_the_same_words_behind_leading_blanks_and_odd_letters(tokenizer):
    caption = "  \nİ sees a Red Dog"
    start = caption.index("Red Dog")
    prompt = grounding_text(caption, {4: [[start, start + 7]]}, tokenizer, 64)
    [[begin, end]] = prompt.spans[4]
    assert prompt.text[begin:end] == "red dog"


@given(
    st.lists(st.sampled_from(["red", "dog", "x-y", "é", " ", "."]), max_size=12).map("".join),
    st.lists(st.tuples(st.integers(-3, 30), st.integers(-3, 30)), min_size=1, max_size=5),
    st.integers(4, 24),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_prompt_fits_and_every_kept_span_holds_words(tokenizer, caption, spans, limit):
    given_spans = {i: [list(span)] for i, span in enumerate(spans)}
    prompt = grounding_text(caption, given_spans, tokenizer, limit)
    assert len(tokenizer(prompt.text)["input_ids"]) <= limit
    assert prompt.text.rstrip().endswith(".")
    for kept in prompt.spans.values():
        for start, end in kept:
            assert 0 <= start < end <= len(prompt.text)
            assert prompt.text[start:end].strip() == prompt.text[start:end] != ""
    answered = set(prompt.spans) | prompt.beyond_limit | prompt.without_token
    assert answered == set(given_spans)
    assert not set(prompt.spans) & (prompt.beyond_limit | prompt.without_token)


def test_phrases_beyond_the_token_limit_are_named(tokenizer):
    caption = "red dog and green cat and blue car"
    spans = {0: [[0, 7]], 1: [[12, 21]], 2: [[26, 34]], 3: [[0, 3], [26, 30]]}
    prompt = grounding_text(caption, spans, tokenizer, 8)
    assert prompt.text == "red dog and green cat. "
    assert prompt.spans == {0: [[0, 7]], 1: [[12, 21]], 3: [[0, 3]]}
    assert prompt.beyond_limit == {2}


def test_a_phrase_cut_in_the_middle_counts_as_beyond_the_limit(tokenizer):
    prompt = grounding_text("a dog and red green blue car", {0: [[10, 28]]}, tokenizer, 8)
    assert prompt.spans == {}
    assert prompt.beyond_limit == {0}


@pytest.mark.parametrize("span", [[3, 4], [5, 5], [90, 95], [-4, 0]])
def test_spans_without_a_word_are_named(tokenizer, span):
    prompt = grounding_text("red dog.", {0: [span]}, tokenizer, 64)
    assert prompt.spans == {}
    assert prompt.without_token == {0}
    assert not prompt.beyond_limit
