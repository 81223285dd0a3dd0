"""Checkpoints of region language models without the frozen image encoder."""

from __future__ import annotations

import shutil

import pytest
import torch

from llmdet.checkpoint import load_weights
from llmdet.checkpoint.frozen import complete, leave_out_frozen
from llmdet.errors import CheckpointError, ConfigError
from llmdet.registry import MODELS
from llmdet.testing.region_models import (
    TINY_CLIP,
    TINY_CONVNEXT,
    tiny_clip,
    tiny_region_lmm,
    write_open_clip,
)

ENCODER = "towers.clip.tower.encoder."


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def build(qwen, tower, seed=0):
    torch.manual_seed(seed)
    lmm = {"type": "LanguageModel", "model": qwen, "dtype": "float32"}
    return MODELS.build(tiny_region_lmm(qwen, tower, lmm=lmm))


@pytest.fixture
def slim(qwen, clip, tmp_path):
    """A model of frozen parts, and its checkpoint as training saves it."""
    model = build(qwen, clip, seed=1)
    checkpoint = {"state_dict": dict(model.state_dict()), "meta": {"processes": 1}}
    leave_out_frozen(checkpoint, model)
    torch.save(checkpoint, tmp_path / "slim.pth")
    return model, tmp_path / "slim.pth"


def test_what_is_frozen_is_left_out_and_what_trains_around_it_is_not(slim):
    model, path = slim
    saved = set(torch.load(path)["state_dict"])
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == saved
    assert any(name.startswith("towers.clip.refinement.") for name in saved)
    assert set(torch.load(path)["meta"]["frozen"]) == {ENCODER, "lmm.causal_lm."}


def test_such_a_file_loads_back_equal(slim, qwen, clip):
    model, path = slim
    again = build(qwen, clip, seed=2)
    assert not load_weights(again, path).kept
    content = torch.load(path)
    whole = complete(content["state_dict"], content["meta"], str(path))
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
        assert torch.equal(value, whole[key]), key


def test_an_encoder_that_trains_is_saved(qwen, clip):
    settings = tiny_region_lmm(qwen, clip)
    settings["towers"]["clip"]["tower"] |= {"frozen": False, "dtype": "float32"}
    model = MODELS.build(settings)
    checkpoint = {"state_dict": dict(model.state_dict())}
    leave_out_frozen(checkpoint, model)
    encoder = {key for key in model.state_dict() if key.startswith(ENCODER)}
    assert encoder <= set(checkpoint["state_dict"])


def test_another_encoder_is_refused(slim, qwen, tmp_path):
    _, path = slim
    other = build(qwen, tiny_clip(tmp_path / "other", seed=3))
    message = r"frozen image encoder .* other weights .*\(towers\.clip\.tower\.model of the config"
    with pytest.raises(CheckpointError, match=message):
        load_weights(other, path)


def test_an_encoder_without_a_source_is_named(slim, qwen, clip):
    _, path = slim
    message = rf"leaves out .* image encoder '{clip}'.*let towers\.clip\.tower\.model of the config"
    with pytest.raises(CheckpointError, match=message):
        load_weights(build(qwen, TINY_CLIP), path)


def test_a_folder_that_is_gone_is_named_before_anything_is_loaded(qwen, clip, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(clip, gone)
    build(qwen, str(gone))
    shutil.rmtree(gone)
    with pytest.raises(ConfigError, match=rf"tower\.model='{gone}' is no folder with a config"):
        build(qwen, str(gone))


@pytest.fixture(params=["folder", "file of open_clip"])
def convnext(request, tmp_path):
    """Settings of a tower whose weights are published, as transformers or open_clip does."""
    torch.manual_seed(4)
    tower = MODELS.build({"type": "ConvNextTower", "model": TINY_CONVNEXT})
    if request.param == "folder":
        from transformers import AutoModel

        AutoModel.from_config(tower.encoder.config).save_pretrained(tmp_path / "convnext")
        return {"type": "ConvNextTower", "model": str(tmp_path / "convnext")}
    file = tmp_path / "clip.safetensors"
    write_open_clip(tower.encoder, file)
    return {"type": "ConvNextTower", "model": TINY_CONVNEXT, "weights": str(file)}


def dual(qwen, clip, fine, seed=0, dtype="float32"):
    torch.manual_seed(seed)
    settings = tiny_region_lmm(qwen, clip)
    coarse = {"type": "TransformersTower", "model": clip}
    tower = {"type": "DualTower", "coarse": coarse, "fine": {**fine, "dtype": dtype}}
    return MODELS.build(settings | {"towers": {"clip": tower}})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_frozen_convnext_is_left_out_and_put_back(qwen, clip, convnext, tmp_path, dtype):
    model = dual(qwen, clip, convnext, dtype=dtype)
    checkpoint = {"state_dict": dict(model.state_dict()), "meta": {"processes": 1}}
    leave_out_frozen(checkpoint, model)
    encoder = "towers.clip.fine.encoder."
    assert not any(name.startswith(encoder) for name in checkpoint["state_dict"])
    torch.save(checkpoint, tmp_path / "slim.pth")
    again = dual(qwen, clip, convnext, seed=1, dtype=dtype)
    assert not load_weights(again, tmp_path / "slim.pth").kept
    content = torch.load(tmp_path / "slim.pth")
    whole = complete(content["state_dict"], content["meta"], "slim.pth")
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
        assert torch.equal(value, whole[key]), key
    setting = "weights" if "weights" in convnext else "model"
    message = rf"leaves out .* ConvNeXt.*let towers\.clip\.fine\.{setting} of the config"
    random = {"type": "ConvNextTower", "model": TINY_CONVNEXT}
    with pytest.raises(CheckpointError, match=message):
        load_weights(dual(qwen, clip, random), tmp_path / "slim.pth")


def test_a_file_of_open_clip_that_has_changed_is_refused(qwen, clip, tmp_path):
    file = tmp_path / "clip.safetensors"
    fine = {"type": "ConvNextTower", "model": TINY_CONVNEXT, "weights": str(file)}
    for seed in (0, 1):
        torch.manual_seed(seed)
        tower = MODELS.build({"type": "ConvNextTower", "model": TINY_CONVNEXT})
        write_open_clip(tower.encoder, file)
        if seed == 0:
            model = dual(qwen, clip, fine)
            checkpoint = {"state_dict": dict(model.state_dict()), "meta": {"processes": 1}}
            leave_out_frozen(checkpoint, model)
            torch.save(checkpoint, tmp_path / "slim.pth")
    message = r"holds other weights today .*\(towers\.clip\.fine\.weights of the config\)"
    with pytest.raises(CheckpointError, match=message):
        load_weights(dual(qwen, clip, fine), tmp_path / "slim.pth")
