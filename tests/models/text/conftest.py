"""A tiny BERT for the tests of the text encoder."""

import pytest

from llmdet.datasets.toy.models import tiny_bert
from llmdet.models.text.bert import SPECIAL_TOKENS, BertModel


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
