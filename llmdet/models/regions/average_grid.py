"""The whole image as means over the cells of a regular grid (RegionGPT's image tokens)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from llmdet.models.vision.views import TowerOutput
from llmdet.registry import MODELS

from .base import RegionBatch, RegionEncoder, RegionFeatures
from .grid_cells import grid_cells


@MODELS.register_module()
class AverageGrid(RegionEncoder):
    """Tokens of the whole view, padding included, whatever box a region has.

    Args:
        size: rows and columns of the grid; that of the tower's map keeps every cell as it is.
        level: of the tower's maps.
    """

    def __init__(self, size: int | tuple[int, int] = 24, level: int = -1) -> None:
        super().__init__()
        rows, columns = (size, size) if isinstance(size, int) else size
        self.size, self.level = (rows, columns), level
        self.lengths = (rows * columns,)

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the cells, row by row."""
        feat = seen.maps[self.level]
        pooled = F.adaptive_avg_pool2d(feat, self.size).flatten(2).transpose(1, 2)
        cells = grid_cells(self.size, feat.device)
        height, width = seen.frame.size
        extents = cells.new_tensor([width, height, width, height])
        images, tokens = len(feat), len(cells)
        number = torch.arange(images, device=feat.device).repeat_interleave(tokens)
        boxes = seen.frame.relative_to_valid((cells * extents).repeat(images, 1), number)
        return RegionFeatures(pooled[regions.image], boxes.view(images, tokens, 4)[regions.image])
