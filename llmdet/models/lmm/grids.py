"""Regular grids over the valid part of an image: features on them, and the cells' boxes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llmdet.models.structures import FeaturePyramid
from llmdet.ops.precision import float32_island


def resample_level(
    memory: Tensor, pyramid: FeaturePyramid, level: int, size: int | tuple[int, int]
) -> Tensor:
    """Bilinear resampling of the unpadded part of one level to a fixed grid.

    The whole batch is read in one call, without cutting images apart: places are clamped to
    the valid part of each image, which equals cutting it out and interpolating.

    Args:
        memory: [B, S, C] features laid out as ``pyramid``.
        level: index of the level; negative counts from the coarsest.
        size: rows and columns of the grid.

    Returns:
        [B, rows * columns, C], row by row, in the type of ``memory``.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    level %= len(pyramid.shapes)
    height, width = pyramid.shapes[level]
    start = sum(h * w for h, w in pyramid.shapes[:level])
    feat = memory[:, start : start + height * width].unflatten(1, (height, width))
    places = _places(pyramid.valid_ratios[:, level], (height, width), (rows, columns))
    sampled = F.grid_sample(feat.permute(0, 3, 1, 2).float(), places, align_corners=False)
    return sampled.flatten(2).transpose(1, 2).to(memory.dtype)


@float32_island
def _places(valid_ratios: Tensor, shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Where the centres of the cells lie: [B, rows, columns, 2] (x, y) in -1..1 of the map."""
    height, width = shape
    axes = []
    for ratio, total, cells in (
        (valid_ratios[:, 0], width, size[1]),
        (valid_ratios[:, 1], height, size[0]),
    ):
        valid = (ratio * total).round()[:, None]  # [B, 1] pixels
        centre = torch.arange(cells, device=ratio.device, dtype=ratio.dtype) + 0.5
        pixel = (centre * valid / cells - 0.5).clamp(min=0)
        pixel = torch.minimum(pixel, valid - 1)
        axes.append((pixel + 0.5) / total * 2 - 1)  # [B, cells]
    x, y = axes
    batch, rows, columns = len(x), size[0], size[1]
    return torch.stack(
        [x[:, None].expand(batch, rows, columns), y[:, :, None].expand(batch, rows, columns)], -1
    )


def grid_cells(size: int | tuple[int, int], device: torch.device) -> Tensor:
    """Boxes [rows * columns, 4] xyxy in 0..1 of the cells of a grid, row by row."""
    rows, columns = (size, size) if isinstance(size, int) else size
    y = torch.arange(rows + 1, device=device, dtype=torch.float32) / rows
    x = torch.arange(columns + 1, device=device, dtype=torch.float32) / columns
    top, left = torch.meshgrid(y[:-1], x[:-1], indexing="ij")
    bottom, right = torch.meshgrid(y[1:], x[1:], indexing="ij")
    return torch.stack([left, top, right, bottom], -1).flatten(0, 1)
