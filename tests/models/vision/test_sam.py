"""SAM and SAM 2 as towers see what transformers' own models see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmdet.checkpoint.frozen import complete, leave_out_frozen
from llmdet.datasets.views import make_view
from llmdet.errors import CheckpointError, ConfigError
from llmdet.models.vision.sam import build_sam
from llmdet.models.vision.segment_anything import config_of
from llmdet.models.vision.views import collate_views
from llmdet.registry import MODELS
from llmdet.testing.region_models import TINY_SAM, TINY_SAM2


def tower(model, **settings):
    torch.manual_seed(0)
    return MODELS.build({"type": "SamTower", "model": model, **settings})


def look(seen_by, *sizes):
    images = [np.random.default_rng(0).integers(0, 256, (*s, 3)).astype(np.uint8) for s in sizes]
    return collate_views([make_view(image, seen_by.view) for image in images])


def test_sam_keeps_the_aspect_and_pads_with_nothing():
    sam = tower(TINY_SAM)
    view = look(sam, (40, 20), (64, 64))
    assert view.pixels.shape == (2, 3, 64, 64)
    assert view.frame.valid_sizes == ((64, 32), (64, 64))
    assert not view.pixels[0, :, :, 32:].any()
    seen = sam(view)
    assert [tuple(each.shape) for each in seen.maps] == [(2, 16, 4, 4)]
    assert seen.valid_ratios[0].tolist() == [[0.5, 1.0]]
    torch.testing.assert_close(seen.tokens, seen.maps[0].flatten(2).mT)


def test_sam_gives_the_embeddings_of_transformers(tmp_path):
    sam = build_sam(TINY_SAM)
    sam.save_pretrained(tmp_path)
    ours = tower(str(tmp_path))
    view = look(ours, (30, 64), (50, 50))
    torch.testing.assert_close(ours(view).maps[0], sam.get_image_embeddings(view.pixels))


def test_sam2_gives_the_pyramid_of_transformers(tmp_path):
    sam = build_sam(TINY_SAM2)
    sam.save_pretrained(tmp_path)
    ours = tower(str(tmp_path))
    view = look(ours, (30, 64))
    assert view.frame.valid_sizes == ((64, 64),)
    seen = ours(view)
    expected = sam.vision_encoder(view.pixels).fpn_hidden_states
    assert [each.shape[2] for each in seen.maps] == [16, 8, 4]
    for mine, theirs in zip(seen.maps, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_frozen_encoder_stays_out_of_checkpoints(tmp_path):
    build_sam(TINY_SAM).save_pretrained(tmp_path)
    ours = torch.nn.ModuleDict({"sam": tower(str(tmp_path))})
    checkpoint = {"state_dict": dict(ours.state_dict()), "meta": {}}
    leave_out_frozen(checkpoint, ours)
    assert not checkpoint["state_dict"]
    whole = complete(checkpoint["state_dict"], checkpoint["meta"], "a.pth")
    assert whole.keys() == ours.state_dict().keys()


def test_a_configuration_follows_from_weights_alone():
    sam = build_sam(TINY_SAM)
    found = config_of(sam.state_dict(), decoder_heads=2)
    assert found.mask_decoder_config.layer_norm_eps == 1e-5
    again = build_sam(found.to_dict())
    again.load_state_dict(sam.state_dict())
    pixels = torch.rand(1, 3, 64, 64)
    theirs = sam.get_image_embeddings(pixels)
    torch.testing.assert_close(again.get_image_embeddings(pixels), theirs)


def test_what_is_no_sam_is_named(tmp_path):
    with pytest.raises(ConfigError, match="is a clip; a SAM or SAM 2"):
        tower({"model_type": "clip"})
    with pytest.raises(ConfigError, match="no folder with a config"):
        tower(str(tmp_path))
    torch.save({"weight": torch.rand(2)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"no checkpoint of segment_anything: it lacks 'vis"):
        tower(str(tmp_path / "a.pth"))
    with pytest.raises(ConfigError, match="trains in float32"):
        tower(TINY_SAM, frozen=False, dtype="bfloat16")
