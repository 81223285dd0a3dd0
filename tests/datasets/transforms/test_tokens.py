"""Tokens are counted by the tokenizer itself."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.datasets.transforms.tokens import (
    TokenCounter,
    characters_with_token,
    load_tokenizer,
    token_offsets,
)
from llmdet.errors import ConfigError

WORDS = st.text(alphabet="redogcat xyz-é.", max_size=12)


@given(st.lists(WORDS, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_names_counted_one_by_one_give_the_length_of_their_prompt(tokenizer, names):
    count = TokenCounter(tokenizer)
    prompt = "".join(f"{name}. " for name in names)
    whole = len(tokenizer(prompt)["input_ids"])
    assert sum(map(count, names)) + count.special_tokens == whole
    assert sum(map(count, names)) + count.special_tokens == whole  # and from memory


def test_characters_with_token_are_those_that_are_no_blank(tokenizer):
    text = " red  dog. "
    covered = characters_with_token(token_offsets(text, tokenizer), len(text))
    assert covered.tolist() == [not character.isspace() for character in text]


def test_an_empty_text_has_no_token(tokenizer):
    assert token_offsets("", tokenizer).shape == (0, 2)
    assert characters_with_token(token_offsets("", tokenizer), 0).tolist() == []


def test_a_missing_tokenizer_is_explained(tmp_path):
    with pytest.raises(ConfigError, match=r"tokenizer_name=.*no tokenizer could be loaded"):
        load_tokenizer(str(tmp_path / "none"))
