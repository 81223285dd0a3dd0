"""Checkpoints without the frozen language model, which its source has already."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmdet.checkpoint import convert_checkpoint, llmdet_to_upstream, load_weights, read_checkpoint
from llmdet.checkpoint.frozen import complete, digest, leave_out_frozen, source_parts
from llmdet.datasets.toy.models import tiny_qwen
from llmdet.errors import CheckpointError, ConfigError

BASE = "lmm.causal_lm.model.layers.0.mlp.up_proj.base_layer.weight"


@pytest.fixture
def slim(llmdet, tmp_path):
    """A model, and its checkpoint as training saves it."""
    model = llmdet(seed=1)
    checkpoint = {"state_dict": dict(model.state_dict()), "meta": {"iter": 3}}
    leave_out_frozen(checkpoint, model)
    torch.save(checkpoint, tmp_path / "slim.pth")
    return model, tmp_path / "slim.pth"


def test_what_trains_is_saved_and_the_frozen_base_is_not(slim):
    model, path = slim
    saved = set(torch.load(path)["state_dict"])
    left_out = set(model.state_dict()) - saved
    assert BASE in left_out
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trainable <= saved
    assert all(key.startswith("lmm.causal_lm.") for key in left_out)


def test_the_detectors_frozen_parts_stay_in_the_file(llmdet):
    model = llmdet(freeze_backbone=True)
    checkpoint = {"state_dict": dict(model.state_dict())}
    leave_out_frozen(checkpoint, model)
    detector = {key for key in model.state_dict() if not key.startswith("lmm.causal_lm.")}
    assert detector <= set(checkpoint["state_dict"])


def test_loading_puts_the_base_back(slim, llmdet):
    model, path = slim
    again = llmdet(seed=2)
    report = load_weights(again, path)
    assert not report.kept
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_another_type_of_the_same_weights_is_the_same_source(slim, llmdet, qwen):
    _, path = slim
    lmm = {"type": "LanguageModel", "model": qwen, "dtype": "bfloat16"}
    lmm |= {"lora": {"r": 4, "alpha": 8}, "region_attention": {"every": 2, "num_heads": 4}}
    load_weights(llmdet(lmm=lmm), path)


def test_a_source_that_has_changed_is_refused(slim, llmdet, tmp_path):
    _, path = slim
    moved = tiny_qwen(tmp_path / "other_qwen")
    weights = load_file(f"{moved}/model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, f"{moved}/model.safetensors", metadata={"format": "pt"})
    lmm = {"type": "LanguageModel", "model": moved, "dtype": "float32"}
    lmm |= {"lora": {"r": 4, "alpha": 8}, "region_attention": {"every": 2, "num_heads": 4}}
    with pytest.raises(CheckpointError, match=r"trained on the frozen language model.*other_qwen"):
        load_weights(llmdet(lmm=lmm), path)


def test_a_detector_takes_its_part_of_such_a_file(slim, detector):
    _, path = slim
    report = load_weights(detector(), path)
    assert "the model has no language model" in report.ignored


def test_an_incomplete_file_that_records_no_source_is_refused(slim, llmdet):
    _, path = slim
    content = torch.load(path)
    content["meta"].pop("frozen")
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="too few"):
        load_weights(llmdet(), path)


def test_a_full_copy_is_read_anew_from_the_source(slim):
    model, path = slim
    content = torch.load(path)
    full = complete(content["state_dict"], content["meta"], str(path))
    assert set(full) == set(model.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(value, full[key]), key


def test_a_base_that_came_from_another_file_stays_in_checkpoints(llmdet, tmp_path):
    tuned = llmdet(seed=1).state_dict()
    tuned[BASE] = tuned[BASE] + 1
    torch.save({"state_dict": tuned}, tmp_path / "tuned.pth")
    model = llmdet(seed=2)
    load_weights(model, tmp_path / "tuned.pth")
    checkpoint = {"state_dict": dict(model.state_dict())}
    leave_out_frozen(checkpoint, model)
    assert torch.equal(checkpoint["state_dict"][BASE], tuned[BASE])


def test_a_language_model_that_trains_is_saved_with_tied_weights_once(llmdet, qwen):
    lmm = {"type": "LanguageModel", "model": qwen, "dtype": "float32", "frozen": False}
    model = llmdet(lmm=lmm)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    checkpoint = {"state_dict": copy.copy(weights)}
    leave_out_frozen(checkpoint, model)
    left_out = set(weights) - set(checkpoint["state_dict"])
    tied = model.lmm.causal_lm.config.tie_word_embeddings
    assert left_out == ({"lmm.causal_lm.lm_head.weight"} if tied else set())


def test_the_hash_sees_a_change_of_one_value(llmdet):
    (part,) = source_parts(llmdet())
    before = digest(part.tensors, torch.bfloat16)
    part.tensors[min(part.tensors)].view(-1)[0] += 1
    assert digest(part.tensors, torch.bfloat16) != before


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_copy_under_our_names_still_knows_its_source(slim, llmdet, tmp_path, suffix):
    model, path = slim
    convert_checkpoint(path, tmp_path / f"copy.{suffix}")
    again = llmdet(seed=2)
    load_weights(again, tmp_path / f"copy.{suffix}")
    assert torch.equal(again.state_dict()[BASE], model.state_dict()[BASE])


def test_the_originals_format_gets_the_whole_language_model(slim, tmp_path):
    model, path = slim
    convert_checkpoint(path, tmp_path / "up.pth", target_format="upstream")
    whole = llmdet_to_upstream(model.state_dict())
    written = read_checkpoint(tmp_path / "up.pth").state_dict
    assert set(written) == set(whole)
    assert all(torch.equal(written[key], value) for key, value in whole.items())


def test_a_source_that_has_moved_is_named_by_the_config(slim, qwen, tmp_path):
    _, path = slim
    moved = tmp_path / "moved"
    shutil.copytree(qwen, moved)
    content = torch.load(path)
    content["meta"]["frozen"]["lmm.causal_lm."]["source"] = str(tmp_path / "gone")
    torch.save(content, path)
    with pytest.raises(ConfigError, match="gone"):
        convert_checkpoint(path, tmp_path / "up.pth", target_format="upstream")
    model = {"lmm": {"model": str(moved)}}
    convert_checkpoint(path, tmp_path / "up.pth", target_format="upstream", model=model)
