"""Key maps: complete, invertible, and bit-exact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from llmdet.checkpoint import (
    config_from_state_dict,
    llmdet_to_transformers,
    llmdet_to_upstream,
    transformers_to_llmdet,
    upstream_to_llmdet,
)
from llmdet.checkpoint.load import is_language_key
from llmdet.checkpoint.systems.llmdet import llmdet_key_to_upstream, upstream_key_to_llmdet
from llmdet.checkpoint.transformers_keys import (
    LLMDET_ONLY,
    reason_without_place,
    reorder_patch_merging,
)
from llmdet.checkpoint.transformers_model import model_changes
from llmdet.checkpoint.transformers_sizes import Heads, fit_sizes
from llmdet.errors import CheckpointError
from llmdet.testing.models import tiny_config
from llmdet.utils.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
VARIANTS = [
    f"swin_{size}_{kind}_lmm" for size in ("t", "b", "l") for kind in ("with", "without")
] + ["swin_t_only_p5_with_lmm"]


@pytest.fixture(params=VARIANTS)
def released(request, golden):
    """Names and shapes of one released model, as tensors without memory."""
    listed = json.loads((golden / "llmdet" / "ckpt_keys.json").read_text())[request.param]
    return {key: torch.empty(shape, device="meta") for key, shape, _ in listed["keys"]}


def test_every_released_key_has_one_name_here_and_comes_back(released):
    ours = upstream_to_llmdet(released)
    assert len(ours) == len(released)
    assert list(llmdet_to_upstream(ours)) == list(released)


def test_every_released_detector_key_has_a_place_in_transformers_or_a_reason(released):
    ours = upstream_to_llmdet(released)
    detector = {key: value for key, value in ours.items() if not is_language_key(key)}
    back = transformers_to_llmdet(llmdet_to_transformers(detector))
    lost = set(detector) - set(back)
    assert set(back) <= set(detector)
    assert all(reason_without_place(key, LLMDET_ONLY) for key in lost)
    assert {key for key in lost if "relative_position_index" not in key} == {
        "dn_query_generator.label_embedding.weight"
    }
    assert all(back[key].shape == detector[key].shape for key in back)


def test_transformers_own_keys_are_those_we_write(released):
    """The real architecture is built without memory from the configuration that we derive."""
    transformers = pytest.importorskip("transformers")
    ours = upstream_to_llmdet(released)
    detector = {key: value for key, value in ours.items() if not is_language_key(key)}
    config = transformers.AutoConfig.for_model(**config_from_state_dict(detector))
    with torch.device("meta"):
        model = transformers.MMGroundingDinoForObjectDetection(config)
    theirs = transformers_to_llmdet(model.state_dict(), config)
    assert {key: value.shape for key, value in theirs.items()} == {
        key: value.shape
        for key, value in detector.items()
        if not reason_without_place(key, LLMDET_ONLY)
    }


@pytest.mark.parametrize("size", ["t", "b", "l"])
def test_a_model_derived_from_transformers_configuration_is_that_of_the_released_config(
    size, golden
):
    """What a config of ours says, and what is derived, become the same sizes."""
    import transformers

    listed = json.loads((golden / "llmdet" / "ckpt_keys.json").read_text())
    keys = listed[f"swin_{size}_without_lmm"]["keys"]
    ours = upstream_to_llmdet({k: torch.empty(shape, device="meta") for k, shape, _ in keys})
    theirs = transformers.AutoConfig.for_model(**config_from_state_dict(ours))
    base = load_config(CONFIGS / "_base_" / "models" / "grounding_dino_swin_t.py")
    base.merge_from_dict({"model": model_changes(theirs)})
    released = load_config(CONFIGS / f"grounding_dino_swin_{size}.py").model
    for part in ("num_queries", "num_feature_levels", "neck", "positional_encoding"):
        assert base.model[part] == released[part], part
    for key in ("embed_dims", "depths", "num_heads", "window_size", "out_indices"):
        assert base.model.backbone[key] == released.backbone[key], key
    assert Heads.of_model(base.model) == Heads.of_model(released)
    for side in ("encoder", "decoder"):
        assert base.model[side].num_layers == released[side].num_layers
        ffn = "feedforward_channels"
        assert base.model[side].layer_cfg.ffn_cfg[ffn] == released[side].layer_cfg.ffn_cfg[ffn]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"two_stage": False}, "two_stage is False in config.json, and this detector has True"),
        ({"backbone_config": {"model_type": "convnext"}}, "model_type is 'convnext'"),
        ({"backbone_config": {"model_type": "swin", "hidden_act": "relu"}}, "hidden_act is 'relu'"),
        (
            {"backbone_config": {"model_type": "resnet", "depths": [1, 1, 1, 1]}},
            r"a ResNet of \[1, 1, 1, 1\] bottleneck blocks",
        ),
        ({"text_config": {"model_type": "roberta"}}, "text_config.model_type is 'roberta'"),
    ],
)
def test_settings_of_transformers_that_our_detector_does_not_have_are_named(changes, sentence):
    import transformers

    backbone = changes.get("backbone_config", {"model_type": "swin"})
    backbone = {**backbone, "out_features": ["stage2", "stage3", "stage4"]}
    settings = transformers.MMGroundingDinoConfig(**{**changes, "backbone_config": backbone})
    with pytest.raises(CheckpointError, match=sentence):
        model_changes(settings)


LANGUAGE_MODEL = {  # the text part of LLaVA-OneVision 0.5B
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize("size", ["swin_t", "swin_b", "swin_l", "swin_t_only_p5"])
def test_a_language_model_of_real_size_has_the_released_names_and_shapes(size, golden, qwen):
    """The modules are built without memory, with the settings of the configs."""
    from mmengine.config import Config

    from llmdet.models.quirks import Quirks
    from llmdet.models.systems.llmdet.building import build_language

    listed = json.loads((golden / "llmdet" / "ckpt_keys.json").read_text())[f"{size}_with_lmm"]
    released = {upstream_key_to_llmdet(key): tuple(shape) for key, shape, _ in listed["keys"]}
    model = Config.fromfile(CONFIGS / f"grounding_dino_{size}.py").model
    lmm = {**model.lmm, "model": LANGUAGE_MODEL, "tokenizer": qwen, "dtype": "float32"}
    with torch.device("meta"):
        parts = build_language(
            lmm,
            model.image_captioner,
            model.region_captioner,
            embed_dims=256,
            num_levels=model.num_feature_levels,
            quirks=Quirks(),
        )
    ours = {
        f"{name}.{key}": tuple(value.shape)
        for name, part in vars(parts).items()
        for key, value in part.state_dict().items()
    }
    assert ours == {key: shape for key, shape in released.items() if is_language_key(key)}


@pytest.mark.parametrize(
    ("upstream", "ours"),
    [
        (
            "lmm.model.layers.3.self_attn.q_proj.ori_model.bias",
            "lmm.causal_lm.model.layers.3.self_attn.q_proj.base_layer.bias",
        ),
        (
            "lmm.model.layers.20.mlp.down_proj.lora_A.weight",
            "lmm.causal_lm.model.layers.20.mlp.down_proj.lora_A.default.weight",
        ),
        (
            "lmm.model.layers.4.down_proj.weight",
            "lmm.causal_lm.model.layers.4.region_attention.down_proj.weight",
        ),
        (
            "lmm.model.layers.4.corss_attn_norm.weight",
            "lmm.causal_lm.model.layers.4.region_attention.norm.weight",
        ),
        (
            "lmm.model.layers.4.cross_attn.value_proj.weight",
            "lmm.causal_lm.model.layers.4.region_attention.attention.value_proj.weight",
        ),
        ("lmm.lm_head.weight", "lmm.causal_lm.lm_head.weight"),
        ("image_seperate.weight", "image_captioner.separator"),
        ("ref_point_head.layers.1.bias", "lmm.reference_head.layers.1.bias"),
        ("decoder.ref_point_head.layers.1.bias", "decoder.ref_point_head.layers.1.bias"),
    ],
)
def test_names_of_the_original_have_clean_counterparts(upstream, ours):
    assert upstream_key_to_llmdet(upstream) == ours
    assert llmdet_key_to_upstream(ours) == upstream


def test_a_language_key_that_nobody_knows_is_an_error():
    with pytest.raises(CheckpointError, match=r"connector\.gate"):
        upstream_to_llmdet({"connector.gate": torch.zeros(1)})


def test_a_transformers_key_that_nobody_knows_is_an_error():
    with pytest.raises(CheckpointError, match=r"model\.mask_head"):
        transformers_to_llmdet({"model.mask_head.weight": torch.zeros(1)})


def test_another_backbone_is_refused():
    with pytest.raises(CheckpointError, match="'convnext' cannot be held here, only swin or"):
        transformers_to_llmdet({}, {"backbone_config": {"model_type": "convnext"}})


def test_patch_merging_gives_the_same_features_in_both_channel_orders():
    """Unfold against slices of rows and columns, each with its own order of the reduction."""
    image = torch.rand(1, 3, 6, 4)
    reduction = torch.rand(5, 12)
    here = F.unfold(image, 2, stride=2).transpose(1, 2) @ reduction.T
    rows = image.permute(0, 2, 3, 1)
    slices = torch.cat([rows[:, y::2, x::2] for x in range(2) for y in range(2)], -1)
    there = slices.flatten(1, 2) @ reorder_patch_merging(reduction, to_transformers=True).T
    torch.testing.assert_close(here, there)


def test_reordering_back_and_forth_changes_nothing():
    weight = torch.rand(5, 24)
    there = reorder_patch_merging(weight, to_transformers=True)
    assert torch.equal(reorder_patch_merging(there, to_transformers=False), weight)


def test_a_round_trip_through_transformers_is_bit_exact(detector, exchangeable):
    weights = detector(**exchangeable).state_dict()
    back = transformers_to_llmdet(llmdet_to_transformers(weights))
    for key, value in weights.items():
        if not reason_without_place(key, LLMDET_ONLY):
            assert torch.equal(back[key], value), key


def test_sizes_that_transformers_cannot_have_are_refused(detector):
    with pytest.raises(CheckpointError, match="half of the image FFN"):
        config_from_state_dict(detector().state_dict())


@pytest.mark.parametrize(
    ("side", "layer", "change", "sentence"),
    [
        ("encoder", "fusion_layer_cfg", {"num_heads": 2}, "encoder.fusion_layer_cfg and the text"),
        (
            "encoder",
            "layer_cfg",
            {"self_attn_cfg": {"num_heads": 16}},
            "wants 8 heads in model.encoder.layer_cfg.self_attn_cfg .* it has 16",
        ),
        (
            "decoder",
            "layer_cfg",
            {"cross_attn_text_cfg": {"num_heads": 2}},
            "decoder.layer_cfg.cross_attn_text_cfg and the decoder's .* has 2 and 8",
        ),
    ],
)
def test_heads_that_transformers_cannot_have_are_refused(
    bert, exchangeable, side, layer, change, sentence
):
    """Shapes do not show them: the folder would open and compute something else."""
    model = tiny_config(bert, **exchangeable)
    Heads.of_model(model).check()
    model[side][layer] = {**model[side][layer], **change}
    with pytest.raises(CheckpointError, match=sentence):
        Heads.of_model(model).check()


def test_sizes_that_transformers_has_stay_bit_by_bit(bert, detector, exchangeable):
    weights = detector(**exchangeable).state_dict()
    fitted = fit_sizes(weights, Heads.of_model(tiny_config(bert, **exchangeable)))
    assert list(fitted) == list(weights)
    assert all(torch.equal(fitted[key], value) for key, value in weights.items())


@pytest.mark.parametrize(
    ("part", "setting", "sentence"),
    [
        ("neck", {"norm_cfg": {"num_groups": 8}}, "model.neck.norm_cfg.num_groups is 8"),
        ("backbone", {"avg_down": True}, "model.backbone.avg_down is True"),
    ],
)
def test_settings_that_transformers_does_not_have_are_refused(
    detector, exchangeable, part, setting, sentence
):
    weights = detector(**exchangeable).state_dict()
    weights["backbone.conv1.weight"] = weights["backbone.bn1.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=sentence):
        config_from_state_dict(weights, {part: setting})


def test_a_backbone_of_another_kind_is_refused(detector, exchangeable):
    weights = detector(**exchangeable).state_dict()
    other = {key: value for key, value in weights.items() if not key.startswith("backbone.")}
    with pytest.raises(CheckpointError, match="neither a Swin nor a ResNet"):
        config_from_state_dict(other)


def test_one_shared_box_head_serves_every_layer(detector, exchangeable):
    """Files of tied models hold the first layer's head only."""
    theirs = llmdet_to_transformers(detector(**exchangeable).state_dict())
    tied = {
        key: value
        for key, value in theirs.items()
        if not key.startswith(("bbox_embed.1.", "model.decoder.bbox_embed"))
    }
    ours = transformers_to_llmdet(tied)
    for end in ("0.weight", "2.bias", "4.weight"):
        first = ours[f"bbox_head.reg_branches.0.{end}"]
        assert torch.equal(ours[f"bbox_head.reg_branches.1.{end}"], first)
