"""Training a part of a detector, and LoRA in it."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from llmdet.checkpoint import load_weights, merge_lora, write_checkpoint
from llmdet.cli import convert_checkpoint
from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import CheckpointError, ConfigError
from llmdet.testing.models import tiny_config, tiny_grounding_dino

IMAGES = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
LORA = {"parts": ["encoder", "decoder", "bbox_head", "language_model"], "lora": {"r": 2}}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("bert"))


def sample():
    made = DetDataSample(
        metainfo={
            "text": "a red circle and a blue square",
            "tokens_positive": {0: [[2, 12]], 1: [[19, 30]]},
            "img_shape": (64, 64),
            "ori_shape": (64, 64),
            "scale_factor": (1.0, 1.0),
        }
    )
    made.gt_instances = InstanceData(
        bboxes=torch.tensor([[4.0, 4, 30, 30], [10, 20, 60, 50]]), labels=torch.tensor([0, 1])
    )
    return made


def changed(model, steps=2):
    """Names of the tensors that a few steps of AdamW with decay change."""
    before = copy.deepcopy(model.state_dict())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.1)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        losses = model.loss(IMAGES, [sample()])
        sum(v for key, v in losses.items() if "loss" in key).backward()
        optimizer.step()
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def scores(model):
    return model.eval().predict(IMAGES, [sample()])[0].pred_instances.scores


def test_only_the_named_parts_move(bert):
    model = tiny_grounding_dino(bert, tuning={"parts": ["decoder", "bbox_head"]})
    moved = changed(model)
    assert {name.partition(".")[0] for name in moved} == {"decoder", "bbox_head"}
    in_training = {name for name, part in model.named_children() if part.training}
    assert in_training == {"decoder", "bbox_head"}
    assert model.training


def test_a_part_may_lie_within_another(bert):
    model = tiny_grounding_dino(bert, tuning={"parts": ["encoder.fusion_layers", "level_embed"]})
    assert {".".join(name.split(".")[:2]) for name in changed(model)} == {
        "encoder.fusion_layers",
        "level_embed",
    }
    assert model.encoder.fusion_layers.training
    assert not model.encoder.layers.training


def test_of_a_model_with_lora_nothing_else_moves(bert):
    moved = changed(tiny_grounding_dino(bert, tuning=LORA))
    assert all(".lora_" in name for name in moved)
    assert {name.partition(".")[0] for name in moved} == set(LORA["parts"])


def test_lora_that_has_learned_nothing_changes_nothing(bert, tmp_path):
    base = tiny_grounding_dino(bert)
    write_checkpoint(tmp_path / "base.pth", base.state_dict())
    model = tiny_grounding_dino(bert, tuning=LORA, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.zero_()
    with pytest.raises(CheckpointError, match=r"has no LoRA.*load_missing=\['lora'\]"):
        load_weights(model, tmp_path / "base.pth")
    load_weights(model, tmp_path / "base.pth", load_missing=["lora"])
    torch.testing.assert_close(scores(model), scores(base), rtol=0, atol=0)


def test_merged_lora_detects_what_it_did_beside_its_maps(bert, tmp_path):
    tuning = {**LORA, "lora": {"r": 2, "alpha": 6}}
    model = tiny_grounding_dino(bert, tuning=tuning)
    changed(model)
    config, trained, merged = (tmp_path / name for name in ("config.py", "a.pth", "b.safetensors"))
    config.write_text(f"model = {tiny_config(bert, tuning=tuning)!r}\n")
    write_checkpoint(trained, model.state_dict())
    convert_checkpoint.main([str(trained), str(merged), "--lora", "merge", "--config", str(config)])
    bare = tiny_grounding_dino(bert, seed=1)
    load_weights(bare, merged)
    torch.testing.assert_close(scores(bare), scores(model), rtol=0, atol=1e-6)
    without = {key: value for key, value in model.state_dict().items() if ".lora_B" not in key}
    zeros = {k: torch.zeros_like(v) for k, v in model.state_dict().items() if ".lora_B" in k}
    model.load_state_dict({**without, **zeros})
    assert not torch.allclose(scores(bare), scores(model), rtol=0, atol=1e-4)


def test_a_detectors_lora_needs_its_alpha(bert):
    model = tiny_grounding_dino(bert, tuning=LORA)
    with pytest.raises(CheckpointError, match=r"model\.tuning\.lora\.alpha"):
        merge_lora(model.state_dict(), alpha=8)


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ({"parts": ["decodr"]}, "did you mean 'decoder'"),
        ({"parts": []}, "list the parts"),
        ({"parts": "decoder"}, "list the parts"),
        ({"parts": ["decoder"], "lroa": {}}, "lora"),
        ({"parts": ["decoder"], "lora": {"r": 0}}, "whole number from 1"),
        ({"parts": ["backbone"]}, "another setting of the model freezes"),
        ({"parts": ["level_embed"], "lora": {}}, "no linear map"),
    ],
)
def test_a_mistake_in_the_settings_is_one_sentence(bert, tuning, message):
    with pytest.raises(ConfigError, match=message):
        tiny_grounding_dino(bert, tuning=tuning, freeze_backbone=True)
