"""The tiny tokenizer with its limit."""

from collections.abc import Callable

import pytest

from llmdet.prompts import PromptTokenizer, load_tokenizer


@pytest.fixture(scope="session")
def limited(bert_folder: str) -> Callable[[int], PromptTokenizer]:
    """The tokenizer of the transforms under test, for prompts of so many tokens."""
    return lambda max_tokens: PromptTokenizer(load_tokenizer(bert_folder), max_tokens)
