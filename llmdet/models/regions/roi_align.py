"""Regions read from maps of several levels by RoIAlign (ChatRex, arXiv 2411.18363, 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from llmdet.errors import ConfigError
from llmdet.models.transformer.boxes import xyxy_to_cxcywh
from llmdet.models.transformer.positions import encode_coordinates
from llmdet.models.vision.views import TowerOutput
from llmdet.ops.precision import float32_island
from llmdet.registry import MODELS

from .base import RegionBatch, RegionEncoder, RegionFeatures, dims_of_levels


@MODELS.register_module()
class RoIAlign(RegionEncoder):
    """One token a region: its box pooled from each level, one level's channels after another's.

    Args:
        levels: of the tower's maps.
        bins: of the aligned box along a side, whose mean is the token.
        upsample: maps are made as large as the first of ``levels`` before they are read, as in
            the original; else each is read as it is.
        positions: add a sine encoding of the box in the view (centre and size, 0..1).
        aligned: shift by half a pixel, so that the middle of the first cell lies at 0.5.
    """

    def __init__(
        self,
        levels: Sequence[int] = (0, 1, 2, 3),
        bins: int = 7,
        upsample: bool = False,
        positions: bool = True,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        if not levels:
            raise ConfigError("RoIAlign: levels is empty; name at least one map of the tower")
        self.levels, self.bins = tuple(levels), bins
        self.upsample, self.positions, self.aligned = upsample, positions, aligned

    def out_dims(self, in_dims: int | Sequence[int]) -> int:
        """Channels of all levels."""
        dims = sum(dims_of_levels(in_dims, self.levels))
        if self.positions and dims % 8:
            raise ConfigError(
                f"RoIAlign: a sine and a cosine for each of 4 numbers need a multiple of 8 "
                f"channels, but {len(self.levels)} levels have {dims}; set positions=False"
            )
        return dims

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the regions, which need boxes."""
        if regions.boxes is None:
            raise ConfigError("RoIAlign reads boxes; give boxes, or use MaskPool for masks")
        boxes = seen.frame.visible_boxes(regions.boxes.float(), regions.image)
        height, width = seen.frame.size
        relative = boxes / boxes.new_tensor([width, height, width, height])
        maps = [seen.maps[level] for level in self.levels]
        if self.upsample:
            size = maps[0].shape[-2:]
            maps = [F.interpolate(feat.float(), size, mode="bilinear") for feat in maps]
        pooled = [self._pool(feat, relative, regions.image) for feat in maps]
        features = torch.cat(pooled, 1)  # [R, C of all levels]
        if self.positions:
            features = features + encode_coordinates(
                xyxy_to_cxcywh(relative), features.shape[1] // 4
            )
        places = seen.frame.relative_boxes(regions.boxes.float(), regions.image)
        return RegionFeatures(features.to(seen.maps[0].dtype)[:, None], places[:, None])

    @float32_island
    def _pool(self, feat: Tensor, relative: Tensor, image: Tensor) -> Tensor:
        height, width = feat.shape[-2:]
        cells = relative * relative.new_tensor([width, height, width, height])
        rois = torch.cat([image[:, None].to(cells), cells], 1)
        return roi_align(feat, rois, self.bins, aligned=self.aligned).mean((2, 3))
