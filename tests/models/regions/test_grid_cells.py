"""Features on regular grids."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llmdet.models.regions import GridCells
from llmdet.models.regions.base import batch_regions
from llmdet.models.regions.grid_cells import grid_cells, resample_map


@pytest.mark.parametrize("size", [1, 3, 8, 11, (2, 5)])
@pytest.mark.parametrize("level", [0, -2])
def test_it_equals_cutting_out_the_valid_part_and_interpolating(seen, level, size):
    feat, ratios = seen.maps[level], seen.valid_ratios[:, level]
    ours = resample_map(feat, ratios, size)
    height, width = feat.shape[2:]
    for image in range(2):
        ratio_x, ratio_y = ratios[image]
        valid = feat[image : image + 1, :, : int(height * ratio_y), : int(width * ratio_x)]
        expected = F.interpolate(valid, size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(ours[image].T[None], expected.flatten(2), rtol=0, atol=1e-6)


def test_padding_never_reaches_the_grid(seen):
    before = resample_map(seen.maps[0], seen.valid_ratios[:, 0], 9)
    padding = seen.encoded.pyramid.padding_mask[:, :64].view(2, 1, 8, 8)
    spoilt = seen.maps[0].masked_fill(padding, 1e6)
    torch.testing.assert_close(resample_map(spoilt, seen.valid_ratios[:, 0], 9), before)


def test_an_image_gets_the_cells_of_all_its_grids(seen):
    encoder = GridCells(grids=((-1, 2), (-2, 3)))
    assert encoder.lengths == (4, 9)
    second = batch_regions([0, 1], torch.device("cpu"))
    tokens = encoder(seen, second)
    assert tokens.features.shape == (1, 13, seen.tokens.shape[-1])
    expected = resample_map(seen.maps[-2], seen.valid_ratios[:, -2], 3)[1]
    assert torch.equal(tokens.features[0, 4:], expected)
    assert torch.equal(tokens.boxes[0, 4:], grid_cells(3, torch.device("cpu")))


def test_cells_tile_the_unit_square_row_by_row():
    cells = grid_cells((2, 4), torch.device("cpu"))
    assert cells.shape == (8, 4)
    assert cells[0].tolist() == [0, 0, 0.25, 0.5]
    assert cells[1].tolist() == [0.25, 0, 0.5, 0.5]
    assert cells[-1].tolist() == [0.75, 0.5, 1, 1]
    areas = (cells[:, 2:] - cells[:, :2]).prod(1)
    assert areas.sum() == 1
