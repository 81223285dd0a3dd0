"""The BERT that tests and the quickstart make for themselves."""

import string
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.datasets.toy.models import tiny_bert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def tokenizer(folder: str) -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_a_word_of_the_vocabulary_is_one_token(tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert(tmp_path, ["Teal", "rhombus"]))
    assert tokenizer.tokenize("teal rhombus") == ["teal", "rhombus"]
    assert tokenizer.tokenize("red") == ["r", "##e", "##d"]


@given(st.text(string.printable, max_size=40))
@settings(max_examples=100, deadline=None)
def test_no_ascii_text_is_unknown(
    tokenizer: transformers.PreTrainedTokenizerBase, text: str
) -> None:
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"] or "[UNK]" in text


def test_special_tokens_frame_a_prompt(tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    ids = tokenizer("red circle. ")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "red", "circle", ".", "[SEP]"]
    assert tokenizer.is_fast


def test_the_saved_model_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(
        tiny_bert(tmp_path, hidden_size=32, layers=3, heads=2)
    )
    assert model.config.hidden_size == 32
    assert len(model.encoder.layer) == 3
    assert model.embeddings.word_embeddings.num_embeddings == model.config.vocab_size


def test_equal_seeds_write_equal_weights_and_others_do_not(tmp_path: Path, folder: str) -> None:
    state = torch.random.get_rng_state()
    again = tiny_bert(tmp_path / "again")
    other = tiny_bert(tmp_path / "other", seed=1)
    assert torch.equal(state, torch.random.get_rng_state())

    first, second, third = (
        (Path(f) / "model.safetensors").read_bytes() for f in (folder, again, other)
    )
    assert first == second
    assert first != third
