"""Character spans to tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from llmdet.errors import DataError
from llmdet.prompts import PromptText, PromptTokenizer
from llmdet.prompts.tokens import check_labels, span_tokens

MAX_TOKENS = 256


def test_spans_find_the_tokens_that_the_original_found(
    golden_text: Callable[[str], Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    for record in golden_text("create_positive_map.json"):
        tokens = span_tokens(record["text"], record["tokens_positive"], tokenizer)
        found = [np.flatnonzero(row[:MAX_TOKENS]).tolist() for row in tokens]
        expected = record["label_to_token_plus1"]
        assert found == [expected[str(k + 1)] for k in range(len(found))], record["text"][:60]


_words = st.text("abcxyzé狗Ü-'/", min_size=1, max_size=6)


@given(words=st.lists(_words, min_size=1, max_size=8), data=st.data())
@settings(max_examples=80, deadline=None)
def test_spans_of_whole_words_agree_with_the_tokenizers_own_lookup(
    tokenizer: PreTrainedTokenizerBase, words: list[str], data: st.DataObject
) -> None:
    text = " ".join(words)
    starts = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    chosen = data.draw(st.lists(st.integers(0, len(words) - 1), min_size=1, max_size=4))
    spans = [[(int(starts[i]), int(starts[i]) + len(words[i]))] for i in chosen]
    encoded = tokenizer(text)
    for row, ((start, stop),) in zip(span_tokens(text, spans, tokenizer), spans, strict=True):
        by_character = {encoded.char_to_token(c) for c in range(start, stop)} - {None}
        assert by_character <= set(np.flatnonzero(row).tolist())
        assert not row[0]
        assert not row[-1]
        outside = {encoded.char_to_token(c) for c in range(len(text)) if not start <= c < stop}
        assert not (outside - {None}) & set(np.flatnonzero(row).tolist())


def test_several_spans_of_one_entity_are_united(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "cat. dog. kite. "
    rows = span_tokens(text, [[(0, 3), (10, 14)], [(5, 8)], []], tokenizer)
    first, second, both = (np.flatnonzero(row).tolist() for row in (rows[0], rows[1], rows[2]))
    assert (first, second, both) == ([1, 5], [3], [])


WORDS = st.text(alphabet="redogcat xyz-é.", max_size=12)


@given(st.lists(WORDS, max_size=6))
def test_names_counted_one_by_one_give_the_length_of_their_prompt(
    limited: Callable[..., PromptTokenizer], names: list[str]
) -> None:
    tokenizer, pieces = limited(), [f"{name}. " for name in names]
    whole = len(tokenizer.tokenizer("".join(pieces))["input_ids"])
    special = tokenizer.max_tokens - tokenizer.room
    assert sum(tokenizer.count(pieces)) + special == whole
    assert sum(tokenizer.count(pieces)) + special == whole  # and from memory


def test_offsets_are_those_of_the_tokens_that_have_characters(
    limited: Callable[..., PromptTokenizer],
) -> None:
    assert limited().offsets(" cat. ").tolist() == [[1, 4], [4, 5]]
    assert limited().offsets("").shape == (0, 2)


def test_a_text_gets_its_tokens_and_those_of_its_entities(
    limited: Callable[..., PromptTokenizer],
) -> None:
    written = PromptText("cat. dog. ", ("", "dog"), ((), ((5, 8),)), label_offset=3)
    made = limited().tokenize(written)
    assert made.text == written.text
    assert made.label_offset == 3
    assert made.ids.tolist() == limited().tokenizer("cat. dog. ")["input_ids"]
    assert made.token_map.astype(int).tolist() == [[0] * 6, [0, 0, 0, 1, 0, 0]]
    nothing = limited().tokenize(PromptText("cat. ", (), ()))
    assert nothing.token_map.shape == (0, 4)


def test_an_entity_without_token_is_named_with_its_text(
    limited: Callable[..., PromptTokenizer],
) -> None:
    prompt = PromptText("a     dog. ", ("dog", "blank"), (((6, 9),), ((3, 4),)), label_offset=40)
    with pytest.raises(DataError, match=r"Entity 41, 'blank' .*\[3, 4\].*a     dog"):
        limited().tokenize(prompt)


def test_a_prompt_over_the_limit_is_refused(limited: Callable[..., PromptTokenizer]) -> None:
    prompt = PromptText("cat. dog. ", ("cat",), (((0, 3),),))
    with pytest.raises(DataError, match=r"6 tokens.*max_tokens is 5"):
        limited(5).tokenize(prompt)


@pytest.mark.parametrize("label", [-1, 0, 2])
def test_a_label_that_no_token_stands_for_is_refused(
    limited: Callable[..., PromptTokenizer], label: int
) -> None:
    prompt = limited().tokenize(PromptText("cat. dog. ", ("", "dog"), ((), ((5, 8),))))
    check_labels([1, 1], prompt)
    with pytest.raises(DataError, match=rf"label {label}, .*'cat. dog. '"):
        check_labels([1, label], prompt)
