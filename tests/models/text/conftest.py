"""A tiny BERT, a recorded tokenizer and golden prompts for the tests of the text room."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from llmdet.datasets.toy.models import tiny_bert
from llmdet.models.text.bert import SPECIAL_TOKENS, BertModel

GOLDEN_TEXT = Path(__file__).resolve().parents[2] / "golden" / "text"


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def bert(bert_folder: str) -> BertModel:
    """A fresh text encoder in eval mode, configured like every published detector."""
    model = BertModel(
        bert_folder,
        pad_to_max=False,
        use_sub_sentence_represent=True,
        special_tokens_list=SPECIAL_TOKENS,
    )
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer() -> transformers.PreTrainedTokenizerBase:
    """The tokenizer with which the golden prompts were recorded."""
    return transformers.AutoTokenizer.from_pretrained(GOLDEN_TEXT / "bert")


@pytest.fixture(scope="session")
def golden_text() -> Callable[[str], Any]:
    """Reads what the original LLMDet answered, see tests/golden/text/README.md."""
    return lambda name: json.loads((GOLDEN_TEXT / name).read_text())
