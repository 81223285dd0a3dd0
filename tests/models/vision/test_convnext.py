"""ConvNeXt as a tower, with weights of transformers and of open_clip."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from llmdet.errors import CheckpointError, ConfigError
from llmdet.models.vision.convnext import transformers_name
from llmdet.models.vision.views import Frame, View
from llmdet.registry import MODELS
from llmdet.testing.region_models import TINY_CONVNEXT, write_open_clip


def build(model=TINY_CONVNEXT, **settings):
    torch.manual_seed(0)
    return MODELS.build({"type": "ConvNextTower", "model": model, **settings})


def view_of(images=1, side=64):
    pixels = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(1))
    sizes = ((side, side),) * images
    return View(
        pixels, Frame(torch.ones(images, 2), torch.zeros(images, 2), sizes, sizes, (side, side))
    )


def test_it_gives_what_the_stages_of_transformers_give(tmp_path):
    from transformers import ConvNextConfig, ConvNextModel

    fields = {name: value for name, value in TINY_CONVNEXT.items() if name != "model_type"}
    expected = ConvNextModel(ConvNextConfig(**fields, layer_scale_init_value=0.5)).eval()
    expected.save_pretrained(tmp_path)
    tower, view = build(str(tmp_path)), view_of(2)
    seen = tower(view)
    states = expected(view.pixels, output_hidden_states=True).hidden_states[-4:]
    for feat, state in zip(seen.maps, states, strict=True):
        torch.testing.assert_close(feat, state)
    assert [feat.shape[-1] for feat in seen.maps] == [16, 8, 4, 2]
    assert tower.map_dims == tuple(feat.shape[1] for feat in seen.maps)
    torch.testing.assert_close(seen.tokens, states[-1].flatten(2).mT)
    assert not seen.tokens.requires_grad


@pytest.mark.parametrize("lead", ["visual.trunk.", "model.vision_tower_aux.vision_"])
def test_weights_of_open_clip_and_of_models_around_it_are_read_by_name(tmp_path, lead):
    tower = build()
    for parameter in tower.encoder.parameters():
        torch.nn.init.normal_(parameter)
    write_open_clip(tower.encoder, tmp_path / "clip.safetensors", lead)
    read = build(weights=str(tmp_path / "clip.safetensors"))
    view = view_of()
    torch.testing.assert_close(read(view).tokens, tower(view).tokens, rtol=0, atol=0)


def test_names_of_open_clip_are_those_of_the_published_file():
    assert transformers_name("stem.0.weight") == "embeddings.patch_embeddings.weight"
    assert transformers_name("stages.1.downsample.0.bias") == (
        "encoder.stages.1.downsampling_layer.0.bias"
    )
    block = "stages.2.blocks.26."
    ours = "encoder.stages.2.layers.26."
    assert transformers_name(f"{block}conv_dw.weight") == f"{ours}dwconv.weight"
    assert transformers_name(f"{block}mlp.fc2.bias") == f"{ours}pwconv2.bias"
    assert transformers_name(f"{block}gamma") == f"{ours}layer_scale_parameter"
    assert transformers_name("head.norm.weight") is None


def test_weights_that_do_not_fit_are_named(tmp_path):
    weights = write_open_clip(build().encoder, tmp_path / "clip.safetensors")
    weights.pop("visual.trunk.stem.0.bias")
    save_file(weights, tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match=r"patch_embeddings\.bias .* missing there \(1 of"):
        build(weights=str(tmp_path / "cut.safetensors"))
    shallow = {**TINY_CONVNEXT, "depths": [1, 1, 1, 1]}
    with pytest.raises(CheckpointError, match=r"stages\.2\.layers\.1\..* is missing here"):
        build(shallow, weights=str(tmp_path / "clip.safetensors"))
    other = {**TINY_CONVNEXT, "hidden_sizes": [8, 8, 16, 24]}
    with pytest.raises(CheckpointError, match="does not fit"):
        build(other, weights=str(tmp_path / "clip.safetensors"))


def test_a_tower_that_trains_has_all_gradients_recomputed_or_not():
    gradients = []
    for checkpoint in (False, True):
        tower = build(frozen=False, dtype="float32", checkpoint=checkpoint).train()
        sum(feat.square().sum() for feat in tower(view_of()).maps).backward()
        gradients.append({name: p.grad for name, p in tower.named_parameters()})
    assert None not in gradients[0].values()
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ({"model_type": "bert"}, {}, "no ConvNeXt"),
        (TINY_CONVNEXT, {"frozen": False, "dtype": "bfloat16"}, "trains in float32"),
    ],
)
def test_what_cannot_be_a_tower_is_named(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(model, **settings)
