"""Regions as the mean of a tower's features over their masks (RegionGPT, arXiv 2403.02330, 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from llmdet.errors import ConfigError, DataError
from llmdet.models.vision.views import TowerOutput
from llmdet.ops.precision import float32_island
from llmdet.registry import MODELS

from .base import RegionBatch, RegionEncoder, RegionFeatures
from .coverage import (
    box_coverage,
    filled_boxes,
    mask_centres,
    mask_coverage,
    nearest_cells,
    sampled_masks,
)

_EPS = 1e-8  # of the original, below which no mean is divided


@MODELS.register_module()
class MaskPool(RegionEncoder):
    """One token a region: the mean of a map over the region's mask, or over its filled box.

    Args:
        level: of the tower's maps.
        sampling: how a mask becomes weights of cells. "area": how much of each cell it covers;
            "bilinear": its value at the cell's middle, as in the original, where masks smaller
            than a cell can vanish.
        vanished: what a region is that covers no cell, or lies outside what the tower sees:
            "nearest": the cell nearest to its middle; "zero": zeros, as in the original.
    """

    def __init__(self, level: int = -1, sampling: str = "area", vanished: str = "nearest") -> None:
        super().__init__()
        for name, value, known in (
            ("sampling", sampling, ("area", "bilinear")),
            ("vanished", vanished, ("nearest", "zero")),
        ):
            if value not in known:
                raise ConfigError(f"MaskPool: {name}={value!r}; known: {', '.join(known)}")
        self.level, self.sampling, self.vanished = level, sampling, vanished

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the regions, which need boxes or masks.

        Raises:
            ConfigError: they have neither.
            DataError: a mask is not of its image's size, or is empty and has no box.
        """
        if regions.boxes is None and regions.masks is None:
            raise ConfigError("MaskPool names regions: give boxes or masks")
        feat = seen.maps[self.level]
        weights = self.weights(seen, regions)
        pooled = [
            _means(part, image)
            for part, image in zip(weights.split(list(regions.counts)), feat, strict=True)
        ]
        features = torch.cat(pooled).to(feat.dtype)
        return RegionFeatures(features[:, None], _places(seen, regions)[:, None])

    def weights(self, seen: TowerOutput, regions: RegionBatch) -> Tensor:
        """The share [R, h, w] float32 of each cell in each region; the shares add up to 1."""
        covered = self.coverage(seen, regions)
        total = covered.sum((1, 2), keepdim=True)
        if self.vanished == "zero":
            return covered / (total + _EPS)
        centres = _centres(regions, covered.device)
        nearest = nearest_cells(seen.frame, centres, regions.image, self._shape(seen))
        shares = covered / total.clamp(min=torch.finfo(total.dtype).tiny)
        return torch.where(total > 0, shares, nearest)

    def coverage(self, seen: TowerOutput, regions: RegionBatch) -> Tensor:
        """How much [R, h, w] float32 of each cell each region covers, 0..1."""
        shape = self._shape(seen)
        if regions.masks is None and self.sampling == "area":
            assert regions.boxes is not None
            return box_coverage(seen.frame, regions.boxes.float(), regions.image, shape)
        method = mask_coverage if self.sampling == "area" else sampled_masks
        parts, start = [seen.frame.scale.new_zeros(0, *shape)], 0
        for image, count in enumerate(regions.counts):
            if count:
                masks = self._masks(seen, regions, image, slice(start, start + count))
                parts.append(method(seen.frame, masks.to(parts[0].device), image, shape))
            start += count
        return torch.cat(parts)

    def _masks(self, seen: TowerOutput, regions: RegionBatch, image: int, part: slice) -> Tensor:
        size = seen.frame.original_sizes[image]
        if regions.masks is None:
            assert regions.boxes is not None
            return filled_boxes(regions.boxes[part], size)
        masks = regions.masks[part]
        for mask in masks:
            if tuple(mask.shape) != size:
                raise DataError(
                    f"a mask of image {image} of the batch has {tuple(mask.shape)} pixels (height, "
                    f"width), but the image has {size}"
                )
        return torch.stack(masks)

    def _shape(self, seen: TowerOutput) -> tuple[int, int]:
        height, width = seen.maps[self.level].shape[-2:]
        return int(height), int(width)


@float32_island
def _means(weights: Tensor, feat: Tensor) -> Tensor:
    """[N, C] of weights [N, h, w] and a map [C, h, w]."""
    return weights.flatten(1) @ feat.flatten(1).T


def _centres(regions: RegionBatch, device: torch.device) -> Tensor:
    if regions.boxes is not None:
        return (regions.boxes[:, :2] + regions.boxes[:, 2:]).float() / 2
    assert regions.masks is not None
    return mask_centres(regions.masks, device)


def _places(seen: TowerOutput, regions: RegionBatch) -> Tensor:
    """Boxes [R, 4] xyxy in 0..1 of the valid image; of masks without boxes the whole image."""
    if regions.boxes is None:
        whole = seen.frame.scale.new_tensor([0.0, 0, 1, 1])
        return whole.expand(len(regions), -1)
    return seen.frame.relative_boxes(regions.boxes.float(), regions.image)
