"""Regular grids over the valid part of an image: features on them, and the cells' boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from llmdet.errors import ConfigError
from llmdet.models.vision.views import TowerOutput
from llmdet.ops.precision import float32_island
from llmdet.registry import MODELS

from .base import RegionBatch, RegionEncoder, RegionFeatures, dims_of_levels


@MODELS.register_module()
class GridCells(RegionEncoder):
    """Tokens of the whole image, whatever box a region has: cells of one or more maps.

    Args:
        grids: (level, cells along a side) of each map the tokens are read from, in order; of a
            detector's memory level -2 is the one of stride 32 ("p5"), -3 that of stride 16 ("p4").
    """

    def __init__(self, grids: Sequence[tuple[int, int]] = ((-2, 20), (-3, 27))) -> None:
        super().__init__()
        self.grids = tuple((level, size) for level, size in grids)
        self.lengths = tuple(size * size for _, size in self.grids)

    def out_dims(self, in_dims: int | Sequence[int]) -> int:
        """Width of all maps that are read, which is the same."""
        dims = dims_of_levels(in_dims, [level for level, _ in self.grids])
        if len(set(dims)) > 1:
            raise ConfigError(
                f"GridCells: the maps of grids={list(self.grids)} have {dims} channels; one "
                "connector reads maps of one width"
            )
        return dims[0]

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the cells, grid after grid, row by row."""
        features, boxes = [], []
        for level, size in self.grids:
            sampled = resample_map(seen.maps[level], seen.valid_ratios[:, level], size)
            features.append(sampled[regions.image])
            boxes.append(grid_cells(size, sampled.device))
        cells = torch.cat(boxes).expand(len(regions), -1, -1)
        return RegionFeatures(torch.cat(features, 1), cells)


def resample_map(feat: Tensor, valid_ratios: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Bilinear resampling of the unpadded part of a map to a fixed grid.

    The whole batch is read in one call, without cutting images apart: places are clamped to
    the valid part of each image, which equals cutting it out and interpolating.

    Args:
        feat: [B, C, h, w].
        valid_ratios: [B, 2], valid (width, height) / (w, h).
        size: rows and columns of the grid.

    Returns:
        [B, rows * columns, C], row by row, in the type of ``feat``.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    places = _places(valid_ratios, (feat.shape[2], feat.shape[3]), (rows, columns))
    sampled = F.grid_sample(feat.float(), places, align_corners=False)
    return sampled.flatten(2).transpose(1, 2).to(feat.dtype)


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
