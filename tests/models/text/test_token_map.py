"""Character spans to tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from llmdet.errors import DataError
from llmdet.models.text.prompt import Prompt
from llmdet.models.text.token_map import span_tokens, token_map

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


def test_a_batch_is_padded_to_its_longest_prompt_and_most_entities(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    short = Prompt("cat. ", ("cat",), (((0, 3),),))
    long = Prompt("cat. dog. ", ("cat", "dog"), (((0, 3),), ((5, 8),)))
    mapped = token_map([short, long], tokenizer, MAX_TOKENS)
    assert mapped.dtype == torch.bool
    assert mapped.shape == (2, 2, 6)
    assert mapped[0].int().tolist() == [[0, 1, 0, 0, 0, 0], [0] * 6]
    assert mapped[1].int().tolist() == [[0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0]]


def test_the_map_of_a_prompt_does_not_change_when_a_caller_writes_to_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    prompt = Prompt("cat. ", ("cat",), (((0, 3),),))
    token_map([prompt], tokenizer, MAX_TOKENS).zero_()
    assert token_map([prompt], tokenizer, MAX_TOKENS).any()


def test_labels_that_a_sample_does_not_use_have_empty_rows(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    prompt = Prompt("cat. ", ("", "cat"), ((), ((0, 3),)))
    assert token_map([prompt], tokenizer, MAX_TOKENS)[0].any(dim=1).tolist() == [False, True]


def test_a_prompt_without_entities_has_an_empty_map(tokenizer: PreTrainedTokenizerBase) -> None:
    assert token_map([Prompt("cat. ", (), ())], tokenizer, MAX_TOKENS).shape == (1, 0, 4)


def test_an_entity_without_token_is_named_with_its_text(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    prompt = Prompt("a     dog. ", ("dog", "blank"), (((6, 9),), ((3, 4),)), label_offset=40)
    with pytest.raises(DataError, match=r"Entity 41, 'blank' .*\[3, 4\].*a     dog"):
        token_map([prompt], tokenizer, MAX_TOKENS)


def test_a_prompt_over_the_limit_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = Prompt("cat. dog. ", ("cat",), (((0, 3),),))
    with pytest.raises(DataError, match=r"6 tokens.*max_tokens is 5"):
        token_map([prompt], tokenizer, 5)
