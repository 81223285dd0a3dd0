"""The tiny tokenizer, loaded."""

import pytest
from transformers import PreTrainedTokenizerBase

from llmdet.datasets.transforms.tokens import load_tokenizer


@pytest.fixture(scope="session")
def tokenizer(bert_folder: str) -> PreTrainedTokenizerBase:
    """The tokenizer of the transforms under test."""
    return load_tokenizer(bert_folder)
