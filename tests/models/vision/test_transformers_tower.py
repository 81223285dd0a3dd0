"""CLIP and SigLIP as towers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmdet.datasets.views import make_view
from llmdet.errors import CheckpointError, ConfigError
from llmdet.models.regions import MaskPool
from llmdet.models.regions.base import batch_regions
from llmdet.models.vision.views import collate_views
from llmdet.registry import MODELS

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
KINDS = ("clip_vision_model", "siglip_vision_model")


def build(model, **settings):
    torch.manual_seed(0)
    return MODELS.build({"type": "TransformersTower", "model": model, **settings})


def look(tower, *sizes):
    images = [np.random.default_rng(0).integers(0, 256, (*s, 3)).astype(np.uint8) for s in sizes]
    return collate_views([make_view(image, tower.view) for image in images])


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_the_hidden_states_of_transformers(kind):
    tower = build({"model_type": kind, **SIZES}, layers=(1, -2))
    view = look(tower, (40, 20), (28, 28))
    seen = tower(view)
    states = tower.encoder(view.pixels, output_hidden_states=True).hidden_states
    torch.testing.assert_close(seen.tokens, states[-2][:, -16:])
    torch.testing.assert_close(seen.maps[0].flatten(2).transpose(1, 2), states[1][:, -16:])
    assert seen.maps[1].shape == (2, 16, 4, 4)
    assert not seen.tokens.requires_grad


def test_whole_models_lend_their_image_encoder(tmp_path):
    from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Llava

    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    clip = CLIPModel(
        CLIPConfig(vision_config=SIZES, text_config={**text, "num_attention_heads": 2})
    )
    clip.save_pretrained(tmp_path / "clip")
    config = {"model_type": "clip_vision_model", **SIZES}
    llama = LlamaConfig(**text, num_attention_heads=2)
    llava = Llava(LlavaConfig(vision_config=config, text_config=llama, image_token_index=49))
    llava.save_pretrained(tmp_path / "llava")
    for folder, expected in (("clip", clip.vision_model), ("llava", llava.model.vision_tower)):
        tower = build(str(tmp_path / folder))
        for name, value in expected.state_dict().items():
            assert torch.equal(tower.encoder.state_dict()[name], value), (folder, name)


def test_a_tower_that_trains_has_gradients_wherever_it_needs_them():
    settings = {"frozen": False, "dtype": "float32"}
    config = {"model_type": "clip_vision_model", **SIZES}
    tower = build(config, **settings)
    checkpointed = build(config, checkpoint=True, **settings)
    view = look(tower, (28, 28))
    gradients = []
    for each in (tower, checkpointed):
        each.train()(view).tokens.square().sum().backward()
        gradients.append({n: p.grad for n, p in each.named_parameters() if p.requires_grad})
    assert None not in gradients[0].values()
    assert not any("layers.2." in name for name in gradients[0])  # behind the layer that is read
    torch.testing.assert_close(*gradients)


def test_a_view_of_another_size_interpolates_positions():
    tower = build({"model_type": "clip_vision_model", **SIZES}, view={"size": (14, 42)})
    assert tower(look(tower, (20, 20))).maps[0].shape == (1, 16, 2, 6)


def test_what_patches_leave_out_of_a_view_belongs_to_no_cell():
    tower = build({"model_type": "siglip_vision_model", **SIZES, "image_size": 34})
    seen = tower(look(tower, (34, 34)))  # 4 patches of 7 pixels, and 6 pixels more
    right = torch.tensor([[20.0, 0, 34, 34]])
    regions = batch_regions([1], torch.device("cpu"), boxes=right)
    covered = MaskPool().coverage(seen, regions)[0]
    expected = torch.tensor([0, 0, 1 / 7, 1]).expand(4, 4)
    torch.testing.assert_close(covered, expected)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ({"model_type": "bert"}, {}, "no image encoder"),
        ({"hidden_size": 16}, {}, "needs 'model_type'"),
        ({"model_type": KINDS[0], **SIZES}, {"layers": (4,)}, "has 3 layers"),
        ({"model_type": KINDS[0], **SIZES}, {"frozen": False, "dtype": "bfloat16"}, "float32"),
        ("nowhere", {}, "no folder"),
    ],
)
def test_what_cannot_be_a_tower_is_named(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(model, **settings)


def test_a_folder_without_weights_is_named(tmp_path):
    from transformers import CLIPVisionConfig

    CLIPVisionConfig(**SIZES).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        build(str(tmp_path))
