"""Regions as means over masks and as aligned boxes: what holds for each kind of encoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.datasets.views import ViewSettings, make_view
from llmdet.errors import ConfigError, DataError
from llmdet.models.regions import AverageGrid, MaskPool, RoIAlign
from llmdet.models.regions.base import batch_regions
from llmdet.models.transformer.boxes import xyxy_to_cxcywh
from llmdet.models.transformer.positions import encode_coordinates
from llmdet.models.vision.views import TowerOutput, collate_views

CPU = torch.device("cpu")
COLOURS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SIZES = ((40, 60), (50, 30))
BOXES = torch.tensor([[3.0, 5, 50, 30], [10, 10, 12.5, 31], [0, 0, 30, 50], [25, 45, 30, 50]])


def identity_tower(view, levels=1):
    """Maps that are the pixels of the view, each half as large as the one before."""
    maps = [view.pixels]
    for _ in range(levels - 1):
        maps.append(torch.nn.functional.avg_pool2d(maps[-1], 2))
    ratios = torch.ones(len(view.pixels), levels, 2)
    tokens = maps[-1].flatten(2).transpose(1, 2)
    return TowerOutput(tokens, tuple(maps), ratios, view.frame)


def pictures(sizes=SIZES):
    random = np.random.default_rng(4)
    return [random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


@pytest.fixture
def seen():
    """Two images of eight channels on two levels."""
    made = collate_views([make_view(image, ViewSettings((64, 64))) for image in pictures()])
    random = torch.Generator().manual_seed(2)
    maps = tuple(torch.rand(2, 8, side, side, generator=random) for side in (16, 8))
    return TowerOutput(maps[1].flatten(2).mT, maps, torch.ones(2, 2, 2), made.frame)


def regions_of(boxes, counts, masks=None):
    return replace(batch_regions(counts, CPU, boxes=boxes), masks=masks)


def masks_of(boxes, image_of):
    masks = []
    for box, image in zip(boxes.round().int().tolist(), image_of, strict=True):
        mask = torch.zeros(SIZES[image], dtype=torch.bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        masks.append(mask)
    return tuple(masks)


ENCODERS = {
    "filled boxes": (MaskPool(), False),
    "masks": (MaskPool(), True),
    "sampled masks": (MaskPool(sampling="bilinear"), True),
    "sampled boxes": (MaskPool(sampling="bilinear", vanished="zero"), False),
    "aligned": (RoIAlign((0, 1)), False),
    "aligned alike": (RoIAlign((0, 1), upsample=True, aligned=False), False),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_batch_is_its_regions_one_by_one_in_any_order(seen, name):
    encoder, by_mask = ENCODERS[name]
    masks = masks_of(BOXES, (0, 0, 1, 1)) if by_mask else None
    whole = encoder(seen, regions_of(BOXES, [2, 2], masks))
    assert torch.isfinite(whole.features).all()
    assert whole.features.shape[:2] == whole.boxes.shape[:2] == (4, 1)
    for region in range(4):
        part = slice(region, region + 1)
        counts = [1, 0] if region < 2 else [0, 1]
        alone = regions_of(BOXES[part], counts, masks and masks[part])
        alone = replace(alone, image=torch.tensor([region // 2]))
        torch.testing.assert_close(encoder(seen, alone).features, whole.features[part])
    swapped = [1, 0, 3, 2]
    turned = regions_of(BOXES[swapped], [2, 2], masks and tuple(masks[i] for i in swapped))
    torch.testing.assert_close(encoder(seen, turned).features, whole.features[swapped])
    none = encoder(seen, regions_of(BOXES[:0], [0, 0], masks and ()))
    assert none.features.shape == (0, *whole.features.shape[1:])


@pytest.mark.parametrize("name", ENCODERS)
def test_an_autocast_around_it_changes_nothing(seen, name):
    encoder, by_mask = ENCODERS[name]
    regions = regions_of(BOXES, [2, 2], masks_of(BOXES, (0, 0, 1, 1)) if by_mask else None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = encoder(seen, regions).features
    assert torch.equal(halved, encoder(seen, regions).features)


@st.composite
def crops(draw):
    """An image's size, a box in it, and a view of its pixels as they are."""
    height, width = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    box = x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
    window = draw(st.sampled_from([None, (0, 0, width, height), (x1, y1, width, height)]))
    side = max(height, width)
    if window and window[:2] == (x1, y1):
        side = max(height - y1, width - x1)
    view = ViewSettings((side, side), draw(st.sampled_from(["pad", "inside"])), **COLOURS)
    return (height, width), box, view, window, draw(st.booleans())


@given(crops(), st.booleans())
@settings(max_examples=60)
def test_a_region_of_an_identity_tower_is_the_mean_of_its_crop(case, by_mask):
    size, (x1, y1, x2, y2), view, window, mirrored = case
    image = pictures([size])[0]
    made = make_view(image, view, window=window, mirrored=mirrored)
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[0, y1:y2, x1:x2] = True
    regions = regions_of(torch.tensor([[x1, y1, x2, y2]]).float(), [1], (mask[0],))
    tower = identity_tower(collate_views([made]))
    pooled = MaskPool()(tower, regions if by_mask else replace(regions, masks=None))
    expected = image[y1:y2, x1:x2, ::-1].reshape(-1, 3).mean(0)
    torch.testing.assert_close(pooled.features[0, 0], torch.tensor(expected).float())


@given(st.integers(5, 60), st.integers(5, 60), st.data())
@settings(max_examples=40)
def test_box_and_mask_of_a_resized_image_have_the_mean_of_the_crop(height, width, data):
    y, x = np.mgrid[:height, :width] + 0.5  # a slope is what resizing leaves as it is
    image = np.repeat((x + 2 * y)[..., None], 3, 2).astype(np.uint8)
    x1, y1 = data.draw(st.integers(0, width - 4)), data.draw(st.integers(0, height - 4))
    x2, y2 = data.draw(st.integers(x1 + 4, width)), data.draw(st.integers(y1 + 4, height))
    view = ViewSettings((120, 120), interpolation="bilinear", **COLOURS)
    tower = identity_tower(collate_views([make_view(image, view)]))
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    regions = regions_of(torch.tensor([[x1, y1, x2, y2]]).float(), [1], (mask,))
    expected = torch.tensor(image[y1:y2, x1:x2].reshape(-1, 3).mean(0)).float()
    for form in (regions, replace(regions, masks=None)):
        pooled = MaskPool()(tower, form).features[0, 0]
        torch.testing.assert_close(pooled, expected, rtol=0, atol=1.0)


def test_what_is_smaller_than_a_cell_is_that_cell(seen):
    pixel = torch.zeros(SIZES[0], dtype=torch.bool)
    pixel[14, 10] = True
    box = torch.tensor([[10.0, 14, 11, 15]])
    x, y = seen.frame.points(torch.tensor([[10.5, 14.5]]), torch.tensor([0]))[0] * 8 / 64
    expected = seen.maps[1][0, :, int(y), int(x)]
    for encoder in (MaskPool(), MaskPool(sampling="bilinear")):
        for masks in (None, (pixel,)):
            pooled = encoder(seen, regions_of(box, [1, 0], masks)).features
            torch.testing.assert_close(pooled[0, 0], expected)
    legacy = MaskPool(sampling="bilinear", vanished="zero")
    assert not legacy(seen, regions_of(box, [1, 0], (pixel,))).features.any()


def test_a_region_outside_of_what_is_seen_is_the_nearest_cell():
    image = pictures()[0]
    made = make_view(image, ViewSettings((8, 8)), window=(0, 0, 20, 20))
    random = torch.rand(1, 4, 4, 4)
    tower = TowerOutput(
        random.flatten(2).mT, (random,), torch.ones(1, 1, 2), collate_views([made]).frame
    )
    pooled = MaskPool()(tower, regions_of(torch.tensor([[50.0, 0, 60, 4]]), [1]))
    torch.testing.assert_close(pooled.features[0, 0], random[0, :, 0, 3])


def test_soft_masks_weigh_cells_and_masks_need_no_box(seen):
    mask = torch.zeros(SIZES[0])
    mask[:, :30], mask[:, 30:] = 0.25, 0.75
    halves = torch.tensor([[0.0, 0, 30, 40], [30, 0, 60, 40]])
    left, right = MaskPool()(seen, regions_of(halves, [2, 0])).features[:, 0]
    soft = MaskPool()(seen, regions_of(None, [1, 0], (mask,)))
    torch.testing.assert_close(soft.features[0, 0], 0.25 * left + 0.75 * right)
    assert soft.boxes.tolist() == [[[0, 0, 1, 1]]]


def test_one_level_is_aligned_alike_whether_or_not_it_is_upsampled(seen):
    regions = regions_of(BOXES, [2, 2])
    one, other = RoIAlign((0,)), RoIAlign((0,), upsample=True)
    torch.testing.assert_close(one(seen, regions).features, other(seen, regions).features)
    bare = RoIAlign((0,), positions=False)(seen, regions).features
    boxes = seen.frame.boxes(BOXES, regions.image) / 64
    positions = encode_coordinates(xyxy_to_cxcywh(boxes), 2)
    torch.testing.assert_close(one(seen, regions).features[:, 0], bare[:, 0] + positions)
    assert one.out_dims(8) == 8
    with pytest.raises(ConfigError, match="multiple of 8"):
        one.out_dims(12)


def test_a_grid_as_large_as_the_map_is_the_map_and_its_cells_know_the_padding(seen):
    tokens = AverageGrid(8)(seen, batch_regions([1, 1], CPU))
    assert torch.equal(tokens.features, seen.maps[1].flatten(2).mT)
    # The first image, 43 of 64 rows high, stands in the middle: cells above it have no height.
    heights = tokens.boxes[0, :, 3] - tokens.boxes[0, :, 1]
    assert heights[:8].abs().max() == 0
    assert heights[32:40].min() == pytest.approx(8 / 43)


def test_faults_of_regions_are_named(seen):
    with pytest.raises(ConfigError, match="give boxes or masks"):
        MaskPool()(seen, batch_regions([1, 0], CPU))
    with pytest.raises(ConfigError, match="use MaskPool"):
        RoIAlign((0,))(seen, batch_regions([1, 0], CPU))
    with pytest.raises(DataError, match=r"\(3, 3\) pixels"):
        MaskPool()(seen, regions_of(None, [1, 0], (torch.ones(3, 3),)))
    with pytest.raises(DataError, match="region 0 of the batch is empty"):
        MaskPool()(seen, regions_of(None, [1, 0], (torch.zeros(SIZES[0]),)))
    with pytest.raises(ConfigError, match="sampling='mean'"):
        MaskPool(sampling="mean")
    with pytest.raises(ConfigError, match="levels is empty"):
        RoIAlign(())
