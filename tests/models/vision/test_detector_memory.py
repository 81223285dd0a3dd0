"""A detector as a tower."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample

from llmdet.datasets.toy.models import tiny_bert
from llmdet.datasets.views import make_view
from llmdet.models.vision.detector_memory import DetectorMemory
from llmdet.models.vision.views import View, collate_views, frame_of
from llmdet.registry import MODELS
from llmdet.testing.models import tiny_config


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    config = tiny_config(tiny_bert(tmp_path_factory.mktemp("bert")))
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
