"""A caption becomes a prompt whose phrases stay where they were."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.datasets.transforms.grounding_text import grounding_text


@pytest.mark.parametrize(
    ("caption", "text"), [("A Red Dog.", "A Red Dog."), (" a red dog", " a red dog. ")]
)
def test_a_caption_is_written_as_at_test_time(limited, caption, text):
    assert grounding_text(caption, {}, limited(64)).text == text


def test_spans_name_the_same_words_behind_leading_blanks_and_odd_letters(limited):
    caption = "  \nİ sees a Red Dog"
    start = caption.index("Red Dog")
    made = grounding_text(caption, {4: [[start, start + 7]]}, limited(64))
    assert made.prompt.spans == ((), (), (), (), ((start, start + 7),))
    (row,) = limited(64)(made.prompt)[0].token_map[4:]
    assert row.sum() == 2


@given(
    st.lists(st.sampled_from(["red", "dog", "x-y", "é", " ", "."]), max_size=12).map("".join),
    st.lists(st.tuples(st.integers(-3, 30), st.integers(-3, 30)), min_size=1, max_size=5),
    st.integers(4, 24),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_prompt_fits_and_every_kept_span_holds_words(limited, caption, spans, limit):
    given_spans = {i: [list(span)] for i, span in enumerate(spans)}
    prompt = grounding_text(caption, given_spans, limited(limit))
    tokenizer = limited(limit)
    assert tokenizer.count([prompt.text])[0] <= tokenizer.room
    assert prompt.text.rstrip().endswith(".")
    for kept in prompt.spans.values():
        for start, end in kept:
            assert 0 <= start < end <= len(prompt.text)
            assert prompt.text[start:end].strip() == prompt.text[start:end] != ""
    answered = set(prompt.spans) | prompt.beyond_limit | prompt.without_token
    assert answered == set(given_spans)
    assert not set(prompt.spans) & (prompt.beyond_limit | prompt.without_token)


def test_phrases_beyond_the_token_limit_are_named(limited):
    caption = "red dog and green cat and blue car"
    spans = {0: [[0, 7]], 1: [[12, 21]], 2: [[26, 34]], 3: [[0, 3], [26, 30]]}
    prompt = grounding_text(caption, spans, limited(8))
    assert prompt.text == "red dog and green cat. "
    assert prompt.spans == {0: [[0, 7]], 1: [[12, 21]], 3: [[0, 3]]}
    assert prompt.beyond_limit == {2}


def test_a_phrase_cut_in_the_middle_counts_as_beyond_the_limit(limited):
    prompt = grounding_text("a dog and red green blue car", {0: [[10, 28]]}, limited(8))
    assert prompt.spans == {}
    assert prompt.beyond_limit == {0}


@pytest.mark.parametrize("span", [[3, 4], [5, 5], [90, 95], [-4, 0]])
def test_spans_without_a_word_are_named(limited, span):
    prompt = grounding_text("red dog.", {0: [span]}, limited(64))
    assert prompt.spans == {}
    assert prompt.without_token == {0}
    assert not prompt.beyond_limit
