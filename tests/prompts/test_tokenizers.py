"""The one loader of tokenizers."""

from pathlib import Path

import pytest

from llmdet.errors import ConfigError
from llmdet.prompts import load_tokenizer


def test_the_tokenizer_gives_character_offsets(bert_folder: str) -> None:
    encoded = load_tokenizer(bert_folder)("a dog", return_offsets_mapping=True)
    assert encoded["offset_mapping"] == [(0, 0), (0, 1), (2, 5), (0, 0)]


def test_a_missing_one_is_explained_under_the_setting_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"'no-such/bert'.*set language_model.name=FOLDER"):
        load_tokenizer("no-such/bert")
    with pytest.raises(ConfigError, match=r"^lmm.tokenizer: .*set lmm.tokenizer=FOLDER"):
        load_tokenizer("no-such/qwen", role="lmm.tokenizer")
    with pytest.raises(ConfigError, match=f"tokenizer_name: the folder '{tmp_path}'"):
        load_tokenizer(str(tmp_path), role="tokenizer_name")
