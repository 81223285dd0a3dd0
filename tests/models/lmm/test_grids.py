"""Features on regular grids."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llmdet.models.lmm.grids import grid_cells, resample_level


@pytest.mark.parametrize("size", [1, 3, 8, 11, (2, 5)])
@pytest.mark.parametrize("level", [0, -2])
def test_it_equals_cutting_out_the_valid_part_and_interpolating(encoded, level, size):
    memory, pyramid = encoded.memory, encoded.pyramid
    ours = resample_level(memory, pyramid, level, size)
    height, width = pyramid.shapes[level]
    start = int(pyramid.level_start_index[level])
    for image in range(2):
        ratio_x, ratio_y = pyramid.valid_ratios[image, level]
        maps = memory[image, start : start + height * width].T.reshape(1, -1, height, width)
        valid = maps[..., : int(height * ratio_y), : int(width * ratio_x)]
        expected = F.interpolate(valid, size, mode="bilinear", align_corners=False)
        torch.testing.assert_close(ours[image].T[None], expected.flatten(2), rtol=0, atol=1e-6)


def test_padding_never_reaches_the_grid(encoded):
    memory, pyramid = encoded.memory, encoded.pyramid
    before = resample_level(memory, pyramid, 0, 9)
    spoilt = memory.masked_fill(pyramid.padding_mask[..., None], 1e6)
    torch.testing.assert_close(resample_level(spoilt, pyramid, 0, 9), before)


def test_cells_tile_the_unit_square_row_by_row():
    cells = grid_cells((2, 4), torch.device("cpu"))
    assert cells.shape == (8, 4)
    assert cells[0].tolist() == [0, 0, 0.25, 0.5]
    assert cells[1].tolist() == [0.25, 0, 0.5, 0.5]
    assert cells[-1].tolist() == [0.75, 0.5, 1, 1]
    areas = (cells[:, 2:] - cells[:, :2]).prod(1)
    assert areas.sum() == 1
