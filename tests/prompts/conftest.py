"""A recorded tokenizer and golden prompts for the tests of the text room."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from llmdet.datasets.toy.models import tiny_bert
from llmdet.prompts import PromptTokenizer, load_tokenizer

GOLDEN_TEXT = Path(__file__).resolve().parents[1] / "golden" / "text"


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer with which the golden prompts were recorded."""
    return load_tokenizer(str(GOLDEN_TEXT / "bert"))


@pytest.fixture(scope="session")
def limited(tokenizer: PreTrainedTokenizerBase) -> Callable[[int], PromptTokenizer]:
    """The same tokenizer for prompts of so many tokens."""
    return lambda max_tokens=256: PromptTokenizer(tokenizer, max_tokens)


@pytest.fixture(scope="session")
def golden_text() -> Callable[[str], Any]:
    """Reads what the original LLMDet answered, see tests/golden/text/README.md."""
    return lambda name: json.loads((GOLDEN_TEXT / name).read_text())
