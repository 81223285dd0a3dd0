"""Folders of RexSeek's key layout, written tiny."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llmdet.apis.region_chat import FIND, RegionChat
from llmdet.checkpoint import load_weights
from llmdet.errors import CheckpointError
from llmdet.models.outputs import ObjectIndex
from llmdet.registry import MODELS
from llmdet.testing.region_models import TINY_CLIP, TINY_CONVNEXT, open_clip_name

OUTPUT = {"type": "ObjectIndex", "count": 4}
#: Ours -> theirs.
NAMES = (
    (r"lmm\.causal_lm\.", ""),
    (r"filler\.connectors\.image\.projector\.", "mm_projector."),
    (r"filler\.connectors\.region\.projector\.", "mm_object_projector."),
    (r"towers\.dual\.coarse\.encoder\.", "vision_tower.vision_tower.vision_model."),
)
FINE = "towers.dual.fine.encoder."


def settings(folder):
    return {
        "type": "RegionLMM",
        "towers": {
            "dual": {
                "type": "DualTower",
                "coarse": {"type": "TransformersTower", "model": {**TINY_CLIP, "patch_size": 14}},
                "fine": {"type": "ConvNextTower", "model": TINY_CONVNEXT},
            }
        },
        "slots": {
            "image": {"tower": "dual", "encoder": {"type": "AverageGrid", "size": 2}},
            "region": {
                "tower": "dual",
                "encoder": {"type": "RoIAlign", "upsample": True, "aligned": False},
            },
        },
        "lmm": {"type": "LanguageModel", "model": str(folder), "pretrained": False},
        "output": OUTPUT,
        "talk": {"max_length": 200, "max_new_tokens": 4, "system": None},
    }


@pytest.fixture(scope="module")
def rexseek(tmp_path_factory):
    """A folder as RexSeek's program saves one, and the weights in it under our names."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llmdet.datasets.toy.models import tiny_qwen

    folder = tmp_path_factory.mktemp("rexseek")
    qwen = tiny_qwen(folder, num_hidden_layers=1)
    tokenizer, text = (
        AutoTokenizer.from_pretrained(qwen),
        AutoModelForCausalLM.from_pretrained(qwen),
    )
    tokenizer.add_tokens(list(ObjectIndex(count=4).added_tokens), special_tokens=True)
    text.resize_token_embeddings(len(tokenizer))
    tokenizer.save_pretrained(folder)
    config = text.config.to_dict() | {
        "architectures": ["RexSeekQwenForCausalLM"],
        "model_type": "rexseek_qwen",
        "mm_object_hidden_size": sum(TINY_CONVNEXT["hidden_sizes"]),
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(4)
    model = MODELS.build(settings(folder))
    ours = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    ours["lmm.causal_lm.lm_head.weight"] = ours["lmm.causal_lm.model.embed_tokens.weight"]
    theirs = {}
    for name, value in ours.items():
        for mine, other in NAMES:
            name = re.sub(mine, other, name)
        if name.startswith(FINE):
            name = f"vision_tower_aux.vision_{open_clip_name(name.removeprefix(FINE))}"
        theirs[name] = value.clone()
    theirs.pop("lm_head.weight")  # tied
    theirs["vision_tower_aux.head.norm.weight"] = torch.ones(2)
    theirs["vision_tower.vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, ours


def test_a_folder_loads_by_name_with_its_notice(rexseek, caplog):
    folder, ours = rexseek
    model = MODELS.build(settings(folder))
    report = load_weights(model, folder)
    assert report.format == "chatrex"
    assert "not commercial" in caplog.text
    for name, value in model.state_dict().items():
        assert torch.equal(value, ours[name]), name
    assert not any(name.endswith("added") for name in ours)  # its own rows are those of objects
    said = RegionChat(model).find(np.zeros((20, 30, 3), np.uint8), "cat", [[0, 0, 9, 9]])
    assert set(said.indices.tolist()) <= {0}
    (ids,) = model.lmm.tokenizer([f"<obj3>{FIND}"]).input_ids
    assert model.lmm.tokenizer.convert_ids_to_tokens(ids[0]) == "<obj3>"


def test_names_of_programs_that_keep_the_towers_inside_the_model_are_the_same(rexseek, tmp_path):
    folder, ours = rexseek
    inside = {
        f"model.{name}" if name.startswith(("mm_", "vision_")) else name: value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    save_file(inside, tmp_path / "inside.safetensors")
    model = MODELS.build(settings(folder))
    load_weights(model, tmp_path / "inside.safetensors")
    name = "towers.dual.fine.encoder.encoder.stages.2.layers.1.pwconv2.weight"
    assert torch.equal(model.state_dict()[name], ours[name])


def test_what_a_file_lacks_is_named(rexseek, tmp_path):
    folder, _ = rexseek
    weights = load_file(folder / "model.safetensors")
    weights.pop("mm_projector.2.bias")
    save_file(weights, tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match=r"filler\.connectors\.image\.projector\.2\.bias"):
        load_weights(MODELS.build(settings(folder)), tmp_path / "cut.safetensors")
