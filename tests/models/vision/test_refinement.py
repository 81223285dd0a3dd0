"""Maps made larger."""

from __future__ import annotations

import pytest
import torch

from llmdet.errors import ConfigError
from llmdet.models.vision.refinement import ChannelNorm, FeatureRefinement
from llmdet.models.vision.views import Frame, View
from llmdet.registry import MODELS


@pytest.mark.parametrize(
    ("kind", "scale", "larger"),
    [
        ("deconv", None, 4),
        ("bilinear", None, 16),
        ("deconv+bilinear", None, 16),
        ("deconv+bilinear", 2, 8),
        ("none", None, 1),
    ],
)
def test_each_kind_makes_a_map_larger(kind, scale, larger):
    refined = FeatureRefinement(8, kind, scale)(torch.rand(2, 8, 3, 5))
    assert refined.shape == (2, 8, 3 * larger, 5 * larger)


def test_the_norm_is_over_channels():
    feat = ChannelNorm(6)(torch.rand(2, 6, 3, 4))
    torch.testing.assert_close(feat.mean(1), torch.zeros(2, 3, 4), rtol=0, atol=1e-6)


def test_what_does_not_exist_is_named():
    with pytest.raises(ConfigError, match="refinement='conv'"):
        FeatureRefinement(8, "conv")
    with pytest.raises(ConfigError, match="no bilinear part"):
        FeatureRefinement(8, "deconv", 4)


@pytest.mark.parametrize(
    ("settings", "side"), [({}, 16), ({"refinement": "deconv+bilinear", "scale": 3}, 48)]
)
def test_only_the_refinement_of_a_frozen_tower_trains(settings, side):
    clip = {
        "model_type": "clip_vision_model",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
    }
    tower = MODELS.build(
        {"type": "RefinedTower", "tower": {"type": "TransformersTower", "model": clip}, **settings}
    )
    frame = Frame(torch.ones(1, 2), torch.zeros(1, 2), ((28, 28),), ((28, 28),), (28, 28))
    seen = tower.train()(View(torch.rand(1, 3, 28, 28), frame))
    assert [tuple(feat.shape) for feat in seen.maps] == [(1, 8, side, side)]
    assert tower.view.size == (28, 28)
    seen.maps[0].sum().backward()
    trained = {name.split(".")[0] for name, p in tower.named_parameters() if p.grad is not None}
    assert trained == {"refinement"}
