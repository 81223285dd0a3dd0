"""A detector as a tower."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from llmdet.datasets.toy.models import tiny_bert
from llmdet.datasets.views import make_view
from llmdet.errors import CheckpointError
from llmdet.models.vision.detector_memory import DetectorMemory
from llmdet.models.vision.views import View, collate_views, frame_of
from llmdet.registry import MODELS
from llmdet.testing.models import tiny_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_config(tiny_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def tower(config):
    torch.manual_seed(0)
    return MODELS.build({"type": "DetectorMemory", "detector": config}).eval()


@torch.no_grad()
def test_the_maps_are_the_memory_level_by_level(tower):
    pixels = torch.rand(2, 3, 64, 96)
    sizes = [(64, 96), (48, 64)]
    samples = [DetDataSample(metainfo={"img_shape": size}) for size in sizes]
    view = View(pixels, frame_of(samples, pixels))
    seen = tower(view, ["red circle. ", ""])
    expected = tower.detector.read_memory(pixels, sizes, ["red circle. ", ""])
    assert torch.equal(seen.tokens, expected.memory)
    assert seen.maps[0].shape == (2, tower.dims, 8, 12)
    flat = torch.cat([level.flatten(2).transpose(1, 2) for level in seen.maps], 1)
    assert torch.equal(flat, expected.memory)
    assert seen.valid_ratios[1, 0].tolist() == pytest.approx([64 / 96, 48 / 64])
    assert seen.queries is None


def test_a_frozen_detector_reads_views_made_for_it_without_a_prompt(tower):
    frozen = DetectorMemory(deepcopy(tower.detector), size=(64, 96), frozen=True).train()
    assert not frozen.detector.training
    images = [np.full(size, 200, np.uint8) for size in ((50, 100, 3), (64, 64, 3))]
    view = collate_views([make_view(image, frozen.view) for image in images])
    seen = frozen(view)
    assert view.pixels.shape == (2, 3, 64, 96)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    torch.testing.assert_close(view.pixels[0, :, 0, 0], (200 - mean) / std)
    assert seen.valid_ratios[0, 0].tolist() == pytest.approx([1, 0.75])
    assert not seen.tokens.requires_grad


@torch.no_grad()
def test_a_tower_of_its_own_prompt_gives_the_queries_that_detection_would_give(tower):
    queried = DetectorMemory(
        deepcopy(tower.detector), size=(64, 96), prompt="red circle. blue ring. ", queries=True
    ).eval()
    view = collate_views([make_view(np.full((64, 96, 3), 90, np.uint8), queried.view)])
    seen = queried(view)
    sample = DetDataSample(metainfo={"img_shape": (64, 96)})
    pyramid = queried.detector.read_images(view.pixels, [sample])
    found = queried.detector.forward_prompts(pyramid, [queried.prompt])
    torch.testing.assert_close(seen.queries, found.decoded.hidden_states[-1])
    torch.testing.assert_close(seen.query_boxes, found.predictions.boxes[-1])
    torch.testing.assert_close(seen.query_scores, found.predictions.logits[-1].amax(-1))
    assert not torch.allclose(seen.tokens, tower(view).tokens)  # which has read no text


def test_a_tower_starts_from_the_training_of_a_detector_with_language(config, tower, tmp_path):
    trained = tower.detector.state_dict()
    language = {"lmm.head.weight": torch.ones(2, 2)}
    torch.save({"state_dict": {**trained, **language}}, tmp_path / "weights.pth")
    torch.manual_seed(1)
    started = DetectorMemory(config, weights=str(tmp_path / "weights.pth"))
    assert all(torch.equal(a, trained[n]) for n, a in started.detector.state_dict().items())
    trained.pop("level_embed")
    torch.save({"state_dict": trained}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors are missing .* level_embed"):
        DetectorMemory(config, weights=str(tmp_path / "weights.pth"))
