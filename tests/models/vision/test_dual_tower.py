"""Two towers on one view, and the image and region tokens of ChatRex that are read from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from llmdet.datasets.views import make_view
from llmdet.errors import ConfigError
from llmdet.models.regions import AverageGrid, RoIAlign
from llmdet.models.regions.base import batch_regions
from llmdet.models.vision.views import collate_views
from llmdet.registry import MODELS
from llmdet.testing.region_models import TINY_CLIP, TINY_CONVNEXT

#: A wide and a high picture, which scale to whole pixels; boxes of both, in their pixels.
SIZES = ((40, 64), (32, 16))
BOXES = torch.tensor([[3.0, 5, 50, 30], [10, 10, 31, 22], [0, 0, 16, 32]])
IMAGE = (0, 0, 1)
DIMS = sum(TINY_CONVNEXT["hidden_sizes"])


def build(clip=TINY_CLIP, **changes):
    """Four by four patches of CLIP, two by two pixels of ConvNeXt's last stage."""
    torch.manual_seed(0)
    return MODELS.build(
        {
            "type": "DualTower",
            "coarse": {"type": "TransformersTower", "model": clip},
            "fine": {"type": "ConvNextTower", "model": TINY_CONVNEXT, **changes},
        }
    )


def look(tower):
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in SIZES]
    return collate_views([make_view(image, tower.view) for image in images])


def test_image_tokens_are_the_channels_of_both():
    tower = build({**TINY_CLIP, "patch_size": 14})  # two by two patches
    view = look(tower)
    seen = tower(view)
    smaller = F.interpolate(view.pixels, (28, 28), mode="bilinear", align_corners=False)
    known = tower.coarse.encoder(smaller, output_hidden_states=True).hidden_states[-2][:, -4:]
    details = tower.fine(view).maps[-1].flatten(2).mT
    torch.testing.assert_close(seen.tokens, torch.cat([known, details], -1))
    assert tower.dims == seen.tokens.shape[-1] == 16 + TINY_CONVNEXT["hidden_sizes"][-1]
    assert [feat.shape[1] for feat in seen.maps] == list(tower.map_dims)
    regions = batch_regions([1, 1], torch.device("cpu"))
    tokens = AverageGrid(2)(seen, regions).features
    torch.testing.assert_close(tokens, seen.tokens)
    assert AverageGrid(2).out_dims(tower.map_dims) == tower.dims


def test_region_tokens_are_those_of_the_paper():
    """Four maps as large as the first, aligned, their mean, and where the box lies."""
    tower = build()
    view = look(tower)
    seen = tower(view)
    encoder = RoIAlign(levels=(0, 1, 2, 3), upsample=True, aligned=False)
    regions = batch_regions([2, 1], torch.device("cpu"), boxes=BOXES)
    tokens = encoder(seen, regions).features[:, 0]
    assert tokens.shape[1] == encoder.out_dims(tower.map_dims) == DIMS

    maps = tower.fine(view).maps
    large = [F.interpolate(feat, (16, 16), mode="bilinear") for feat in maps]
    placed = []
    for box, image in zip(BOXES, IMAGE, strict=True):
        height, width = SIZES[image]
        scale = 64 / max(height, width)
        shift = torch.tensor([64 - width * scale, 64 - height * scale]).div(2).repeat(2)
        placed.append(torch.cat([torch.tensor([float(image)]), box * scale + shift]))
    rois = torch.stack(placed)
    expected = roi_align(torch.cat(large, 1), rois, 7, spatial_scale=0.25).mean((2, 3))
    for row, (_, x1, y1, x2, y2) in enumerate((rois / 64).tolist()):
        numbers = ((y1 + y2) / 2, (x1 + x2) / 2, x2 - x1, y2 - y1)
        quarter = DIMS // 4
        for part, number in enumerate(numbers):
            for channel in range(quarter):
                angle = number * 2 * math.pi / 10000 ** (2 * (channel // 2) / quarter)
                wave = math.cos(angle) if channel % 2 else math.sin(angle)
                expected[row, part * quarter + channel] += wave
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)


def test_points_lie_in_the_smaller_view_where_they_lie_in_the_larger_one():
    tower = build()
    view = look(tower)
    smaller = tower._coarse_view(view)
    images = torch.tensor([0, 1, 1])
    points = torch.tensor([[64.0, 40], [16, 32], [0, 0]])
    expected = view.frame.points(points, images) * 28 / 64
    torch.testing.assert_close(smaller.frame.points(points, images), expected)
    inside = smaller.frame.relative_boxes(BOXES, torch.tensor(IMAGE))
    whole = view.frame.relative_boxes(BOXES, torch.tensor(IMAGE))
    torch.testing.assert_close(inside, whole, rtol=0, atol=0.03)  # a valid part of whole pixels
    assert smaller.pixels.shape[-2:] == smaller.frame.size == (28, 28)


def test_a_coarse_tower_of_other_colours_and_another_grid_sees_its_own():
    siglip = {**TINY_CLIP, "model_type": "siglip_vision_model"}
    tower = build(siglip)
    view = look(tower)
    mean, std = (torch.tensor(each)[:, None, None] for each in (tower.view.mean, tower.view.std))
    smaller = tower._coarse_view(view).pixels
    colours = F.interpolate(view.pixels * std + mean, (28, 28), mode="bilinear")
    torch.testing.assert_close(smaller, (colours - 127.5) / 127.5)
    assert tower(view).maps[-1].shape == (2, tower.dims, 4, 4)


def test_what_cannot_see_one_view_is_named():
    with pytest.raises(ConfigError, match="both are squares"):
        build(view={"size": (64, 32)})
    with pytest.raises(ConfigError, match="no smaller"):
        build(view={"size": (14, 14)})
    with pytest.raises(ConfigError, match="view of fine has fit='inside'"):
        build(view={"fit": "inside"})
    with pytest.raises(ConfigError, match="level 4 is read, but the tower has 4 maps"):
        RoIAlign((0, 4)).out_dims((8, 8, 8, 8))
