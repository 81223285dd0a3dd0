"""Every door through which a file comes in, tried with a file that would run a program.

A program that ran would leave a marker behind; after each trial there must be none.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import load_checkpoint
from torch import nn

from llmdet.checkpoint import convert_checkpoint, load_weights, read_checkpoint
from llmdet.datasets.toy.models import tiny_bert, tiny_qwen
from llmdet.engine import build_runner, latest_checkpoint, read_training_state
from llmdet.errors import LLMDetError
from llmdet.models.language.causal_lm import build_causal_lm
from llmdet.models.regions.connector import read_connector
from llmdet.models.text.pretrained import load_bert
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.registry import MODELS
from llmdet.testing.line import line_config
from llmdet.utils.config import load_config
from llmdet.utils.files import read_npz

ROOT = Path(__file__).parents[1]


class Program:
    """Leaves a marker behind where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "a program ran"
    yield path
    assert not path.exists()


def hostile(folder: Path, marker: Path, form: str) -> Path:
    """A checkpoint that all readers would take, but for the program in its optimizer's state."""
    content = {
        "state_dict": {"linear.weight": torch.ones(1, 1), "linear.bias": torch.ones(1)},
        "optimizer": {"state": {0: {"exp_avg": Program(marker)}}, "param_groups": []},
        "message_hub": {},
        "meta": {"iter": 1, "epoch": 0},
    }
    path = folder / "iter_1.pth"
    if form == "raw pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


def resume(path: Path, folder: Path) -> None:
    build_runner(line_config(folder, load_from=str(path), resume=True)).train()


def resume_newest(path: Path, folder: Path) -> None:
    (path.parent / "last_checkpoint").write_text(path.name)
    resume(latest_checkpoint(path.parent) or path, folder)


def init_cfg(path: Path, folder: Path) -> None:
    pretrained = dict(type="Pretrained", checkpoint=str(path))
    MODELS.build(ConfigDict(type="mmdet.SwinTransformer", init_cfg=pretrained)).init_weights()


DOORS = {
    "weights": lambda path, folder: read_checkpoint(path),
    "load_from": lambda path, folder: load_weights(nn.Linear(1, 1), path),
    "training": lambda path, folder: build_runner(
        line_config(folder / "run", load_from=str(path))
    ).train(),
    "a state": lambda path, folder: read_training_state(path),
    "resume": resume,
    "resume of the newest": resume_newest,
    "convert": lambda path, folder: convert_checkpoint(path, folder / "out.pth"),
    "convert to upstream's": lambda path, folder: convert_checkpoint(
        path, folder / "out.pth", target_format="upstream"
    ),
    "mmengine": lambda path, folder: load_checkpoint(nn.Linear(1, 1), str(path)),
    "init_cfg": init_cfg,
    "connector": lambda path, folder: read_connector(path),
}


@pytest.mark.parametrize("form", ["zip", "legacy", "raw pickle"])
@pytest.mark.parametrize("door", DOORS)
def test_no_program_of_a_checkpoint_runs(door, form, tmp_path, marker):
    path = hostile(tmp_path, marker, form)
    with pytest.raises(LLMDetError, match=r"iter_1\.pth"):
        DOORS[door](path, tmp_path)


def test_none_runs_in_the_demo_either(tmp_path, marker, demo, tiny, photos):
    weights = ["--weights", str(hostile(tmp_path, marker, "zip")), "--text", "dog", "-c"]
    with pytest.raises(LLMDetError, match=r"iter_1\.pth is a pickle that would run"):
        demo.main([str(photos), str(tiny.config), *weights])


def load_language_model(folder: str) -> Any:
    return build_causal_lm(folder, dtype=torch.float32)


@pytest.mark.parametrize("model", ["text encoder", "language model"])
@pytest.mark.parametrize("form", ["zip", "legacy", "raw pickle"])
def test_no_program_of_a_folder_of_weights_runs(model, form, tmp_path, marker):
    folder = Path((tiny_bert if model == "text encoder" else tiny_qwen)(tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    hostile(tmp_path, marker, form).rename(folder / "pytorch_model.bin")
    load = load_bert if model == "text encoder" else load_language_model
    with pytest.raises(LLMDetError, match=re.escape(str(folder))):
        load(str(folder))


CODE = "from pathlib import Path\nPath({marker!r}).touch()\nclass Own: pass\n"


@pytest.mark.parametrize("kind", ["bert", "something of its own"])
def test_no_module_beside_weights_is_imported(kind, tmp_path, marker, monkeypatch):
    """Nor is anybody asked whether it may: a program that waits for an answer may get one."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder = Path(tiny_bert(tmp_path / "model"))
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    config = json.loads((folder / "config.json").read_text())
    names = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "own.Own")
    config |= {"model_type": kind, "auto_map": names}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    tokenizer |= {"tokenizer_class": "Own"} if kind != "bert" else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    for load in (load_bert, load_tokenizer, load_language_model):
        try:
            load(str(folder))
        except LLMDetError as error:
            assert str(folder) in str(error)  # noqa: PT017  some may load, none may run


def test_nobody_trusts_remote_code():
    calls = re.compile(r"trust_remote_code(?!=False)")
    for folder in ("llmdet", "tools", "demo", "configs"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not calls.search(path.read_text()), path


def test_what_reads_a_config_of_a_folder_says_that_its_code_is_not_trusted():
    automatic = re.compile(r"\bAuto\w+\.from_pretrained\((?:[^()]|\([^()]*\))*\)")
    calls = [
        (path, call)
        for path in (ROOT / "llmdet").rglob("*.py")
        if "testing" not in path.parts
        for call in automatic.findall(path.read_text())
    ]
    assert len(calls) > 5
    for path, call in calls:
        assert "trust_remote_code=False" in call, (path, call)


# --- what is no checkpoint


def test_no_program_of_a_yaml_config_runs(tmp_path, marker):
    path = tmp_path / "config.yaml"
    path.write_text(f"model: !!python/object/apply:pathlib.Path.touch [{marker}]")
    with pytest.raises(LLMDetError, match=r"config\.yaml' cannot be read: ConstructorError"):
        load_config(path)


def test_a_yaml_config_of_data_is_read_as_before(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("model:\n  scale: !!python/tuple [800, 1333]\n  lr: 1.0e-4\n")
    assert load_config(path).model == {"scale": (800, 1333), "lr": 1e-4}


@pytest.mark.parametrize("suffix", ["pkl", "pickle"])
def test_no_program_of_pickled_annotations_runs(suffix, tmp_path, marker):
    path = tmp_path / f"annotations.{suffix}"
    path.write_bytes(pickle.dumps({"data_list": [Program(marker)]}))
    with pytest.raises(LLMDetError, match="pickled file is not read"):
        mmengine.load(path)
    path.write_bytes(pickle.dumps({"data_list": [{"bbox": np.ones(4)}]}))
    assert mmengine.load(path)["data_list"][0]["bbox"].tolist() == [1, 1, 1, 1]


def test_no_program_of_an_npz_file_runs(tmp_path, marker):
    path = tmp_path / "predictions.npz"
    np.savez(path, boxes=np.array([Program(marker)], dtype=object))
    with pytest.raises(LLMDetError, match=r"predictions\.npz"):
        read_npz(path, "boxes")


@pytest.mark.parametrize("names", ["../model.safetensors", "/etc/model.safetensors"])
def test_an_index_of_shards_cannot_lead_out_of_its_folder(tmp_path, names):
    index = {"weight_map": {"weight": names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LLMDetError, match=r"outside its folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["[", "[1]", "\udcff", '{"weight_map": 3}', "{}"])
def test_a_folder_with_a_broken_index_is_named(tmp_path, content):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content, errors="surrogateescape")
    with pytest.raises(LLMDetError, match=r"index\.json"):
        read_checkpoint(tmp_path)
