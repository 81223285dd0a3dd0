"""Where the text encoder's weights come from, and what is said when they do not come."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError
from llmdet.models.text.pretrained import load_bert


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of its own for each test, to be damaged."""
    return Path(tiny_bert(tmp_path))


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_weights_of_half_precision_become_float32(folder: Path) -> None:
    transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).half().save_pretrained(
        folder
    )
    assert {p.dtype for p in load_bert(str(folder)).parameters()} == {torch.float32}


def test_a_folder_without_weights_starts_random_and_says_so_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "model.safetensors").unlink()
    with caplog.at_level(logging.WARNING, "llmdet"):
        model = load_bert(str(folder))
    (record,) = caplog.records
    assert str(folder) in record.message
    assert "no weights" in record.message
    assert all(p.isfinite().all() for p in model.parameters())


def _old_name(key: str) -> str:
    for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        key = key.replace(new, old)
    return f"bert.{key}"


def test_weights_under_the_names_of_the_first_bert_are_read(folder: Path) -> None:
    """bert-base-uncased still calls its norms gamma and beta and carries a language head."""
    current = load_bert(str(folder)).state_dict()
    old = {_old_name(key): torch.randn_like(value) for key, value in current.items()}
    (folder / "model.safetensors").unlink()
    torch.save({**old, "cls.predictions.bias": torch.zeros(3)}, folder / "pytorch_model.bin")
    for key, value in load_bert(str(folder)).state_dict().items():
        assert value.equal(old[_old_name(key)])


def test_an_unreachable_hub_id_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = r"'no-such/bert'.*hf download no-such/bert .*language_model.name=FOLDER"
    with pytest.raises(ConfigError, match=message):
        load_bert("no-such/bert")


def test_a_missing_folder_is_told_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hf download bert-base-uncased"):
        load_bert(str(tmp_path / "missing"))


def test_the_toy_text_encoder_comes_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"python -m llmdet.datasets.toy data/toy"):
        load_bert("data/toy/bert")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_bert(str(tmp_path))


def test_another_architecture_is_named(folder: Path) -> None:
    edit_config(folder, model_type="roberta")
    with pytest.raises(ConfigError, match="'roberta'"):
        load_bert(str(folder))


def test_weights_that_lack_a_layer_are_refused(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=3)
    with pytest.raises(ConfigError, match=r"lack 16 tensors.*encoder\.layer\.2"):
        load_bert(str(folder))


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    edit_config(folder, hidden_size=128)
    with pytest.raises(ConfigError, match=str(folder)):
        load_bert(str(folder))


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 cut"])
def test_damaged_weights_are_refused(folder: Path, weights: str, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / weights).write_bytes(content)
    with pytest.raises(ConfigError, match=str(folder)):
        load_bert(str(folder))


def test_weights_that_are_a_program_are_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": _Touch(tmp_path / "touched")}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=str(folder)):
        load_bert(str(folder))
    assert not (tmp_path / "touched").exists()


class _Touch:
    """Unpickles into a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_copy_of_a_folder_loads_like_the_folder(bert_folder: str, tmp_path: Path) -> None:
    shutil.copytree(bert_folder, tmp_path / "copy")
    ours, theirs = load_bert(str(tmp_path / "copy")), load_bert(bert_folder)
    for key, value in theirs.state_dict().items():
        assert ours.state_dict()[key].equal(value)


def test_where_a_checkpoint_brings_the_weights_none_are_read(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"never opened")
    whole = load_bert(str(folder), pretrained=False)
    assert whole.dtype == torch.float32
    assert torch.equal(
        whole.embeddings.position_ids[0], torch.arange(whole.config.max_position_embeddings)
    )
