"""GPT4RoI's region encoder as GLaMM has it: levels that exchange channels, then RoIAlign of each.

arXiv 2307.03601, 3.2, and 2311.03356, 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from llmdet.errors import ConfigError
from llmdet.models.vision.views import TowerOutput
from llmdet.ops.precision import float32_island
from llmdet.registry import MODELS

from .base import RegionBatch, RegionEncoder, RegionFeatures, dims_of_levels

#: Of the group normalisation behind each round.
_GROUPS = 64
#: Points along a side of a bin whose mean it is.
_SAMPLES = 2


@MODELS.register_module()
class FusedRoIAlign(RegionEncoder):
    """One token a region, from an image encoder's layers as a pyramid.

    Each layer's map is made finer, the shallowest the most; the levels exchange quarters of their
    channels for some rounds; the aligned bins of all levels are added up and mapped to one vector,
    to which a code of the box is added.

    Args:
        in_dims: width C of the maps, a multiple of 64.
        dims: width of a token.
        levels: of the tower's maps, shallow to deep.
        scales: how many times finer each becomes.
        rounds: in which levels exchange channels.
        bins: of the aligned box along a side.
        box_dims: width of the box's code, half-way.
        legacy_roi_scale: boxes reach over this many pixels of the view, whatever its size, so that
            they lie too far left and too high: 224 in GLaMM's released weights, whose view has
            336; None for boxes where they are.
        legacy_crop: boxes count as parts of the whole image also where the view shows its middle
            (``fit="crop"``), as in GLaMM's released weights.
    """

    def __init__(
        self,
        in_dims: int = 1024,
        dims: int = 1024,
        *,
        levels: Sequence[int] = (0, 1, 2, 3),
        scales: Sequence[int] = (8, 4, 2, 1),
        rounds: int = 5,
        bins: int = 14,
        box_dims: int = 256,
        legacy_roi_scale: float | None = None,
        legacy_crop: bool = False,
    ) -> None:
        super().__init__()
        if len(levels) != len(scales) or not levels:
            raise ConfigError(
                f"FusedRoIAlign: {len(levels)} levels and {len(scales)} scales; give each level one"
            )
        if in_dims % _GROUPS:
            raise ConfigError(
                f"FusedRoIAlign: in_dims={in_dims}; its normalisation has {_GROUPS} groups, give a "
                "multiple of it"
            )
        self.in_dims, self.dims, self.bins = in_dims, dims, bins
        self.levels, self.scales = tuple(levels), tuple(scales)
        self.legacy_roi_scale, self.legacy_crop = legacy_roi_scale, legacy_crop
        self.inputs = nn.ModuleList(nn.Conv2d(in_dims + 2, in_dims, 1) for _ in levels)
        self.rounds = nn.ModuleList(_round(in_dims) for _ in range(rounds))
        self.outputs = nn.ModuleList(nn.Conv2d(in_dims, in_dims, 3, padding=1) for _ in levels)
        self.flatten = nn.Linear(in_dims * bins * bins, dims)
        self.box_code = nn.Sequential(
            nn.Linear(4, box_dims),
            nn.ReLU(),
            nn.LayerNorm(box_dims),
            nn.Linear(box_dims, dims),
            nn.ReLU(),
            nn.LayerNorm(dims),
        )

    def out_dims(self, in_dims: int | Sequence[int]) -> int:
        """Width of a token.

        Raises:
            ConfigError: the tower's maps are of another width than this was built for.
        """
        widths = set(dims_of_levels(in_dims, self.levels))
        if widths != {self.in_dims}:
            raise ConfigError(
                f"FusedRoIAlign: in_dims={self.in_dims}, but the tower's maps have "
                f"{', '.join(map(str, sorted(widths)))} channels"
            )
        return self.dims

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the regions, which need boxes."""
        if regions.boxes is None:
            raise ConfigError("FusedRoIAlign reads boxes; give boxes, or use MaskPool for masks")
        places = self.places(seen, regions)
        if not len(regions):  # convolutions of whole pyramids would be for nothing
            return RegionFeatures(places.new_zeros(0, 1, self.dims), places[:, None])
        rois = self._rois(seen, regions, places)
        pooled = self.pooled([seen.maps[n] for n in self.levels], rois, regions.image)
        return RegionFeatures(self.joined(pooled, places)[:, None], places[:, None])

    def places(self, seen: TowerOutput, regions: RegionBatch) -> Tensor:
        """Boxes [R, 4] xyxy in 0..1 of what their code is made of: the image as it is seen."""
        assert regions.boxes is not None
        boxes = regions.boxes.float()
        if not self.legacy_crop:
            return seen.frame.relative_boxes(boxes, regions.image)
        sizes = torch.tensor([(w, h, w, h) for h, w in seen.frame.original_sizes])
        return boxes / sizes.to(boxes.device, non_blocking=True)[regions.image]

    def pooled(self, maps: Sequence[Tensor], rois: Tensor, image: Tensor) -> list[Tensor]:
        """Aligned bins [R, C, bins, bins] of each level.

        Args:
            maps: of each level, [B, C, h, w].
            rois: [R, 4] xyxy in 0..1 of the maps.
            image: [R] int64, of which image each is.
        """
        return [self._align(feat, rois, image) for feat in self._pyramid(maps)]

    def joined(self, pooled: Sequence[Tensor], places: Tensor) -> Tensor:
        """Tokens [R, dims] of bins of all levels, and boxes [R, 4] in 0..1 of the image."""
        dtype = self.flatten.weight.dtype
        levels = [conv(bins.to(dtype)) for conv, bins in zip(self.outputs, pooled, strict=True)]
        flat = torch.stack(levels).sum(0).relu().flatten(1)  # [R, C * bins * bins]
        return self.flatten(flat) + self.box_code(places.to(dtype))

    def _rois(self, seen: TowerOutput, regions: RegionBatch, places: Tensor) -> Tensor:
        """Where features are read, [R, 4] in 0..1 of the view."""
        assert regions.boxes is not None
        height, width = seen.frame.size
        extent = places.new_tensor([width, height, width, height])
        if self.legacy_roi_scale is not None:
            return places * self.legacy_roi_scale / extent
        if self.legacy_crop:
            return places
        return seen.frame.visible_boxes(regions.boxes.float(), regions.image) / extent

    def _pyramid(self, maps: Sequence[Tensor]) -> list[Tensor]:
        dtype = self.flatten.weight.dtype
        levels = []
        for feat, scale, conv in zip(maps, self.scales, self.inputs, strict=True):
            size = feat.shape[-2] * scale, feat.shape[-1] * scale
            levels.append(conv(_with_coordinates(_resize(feat.to(dtype), size))))
        for fuse in self.rounds:
            levels = [fuse(mixed) for mixed in exchange(levels)]
        return levels

    @float32_island
    def _align(self, feat: Tensor, rois: Tensor, image: Tensor) -> Tensor:
        height, width = feat.shape[-2:]
        cells = rois * rois.new_tensor([width, height, width, height])
        cells = torch.cat([image[:, None].to(cells), cells], 1)
        return roi_align(feat, cells.to(feat), self.bins, sampling_ratio=_SAMPLES, aligned=True)


def exchange(levels: Sequence[Tensor]) -> list[Tensor]:
    """The levels [B, C, h, w], fine to coarse, with half of their channels from neighbours.

    The last quarter of the next coarser one takes the place of the third quarter, the third
    quarter of the next finer one that of the last; beyond the ends of the pyramid a level is its
    own neighbour.
    """
    quarter = levels[0].shape[1] // 4
    kept = levels[0].shape[1] - 2 * quarter
    mixed = []
    for number, level in enumerate(levels):
        size = level.shape[-2:]
        coarser = levels[min(number + 1, len(levels) - 1)][:, kept + quarter :]
        finer = levels[max(number - 1, 0)][:, kept : kept + quarter]
        mixed.append(torch.cat([level[:, :kept], _resize(coarser, size), _resize(finer, size)], 1))
    return mixed


def _round(dims: int) -> nn.Sequential:
    """What follows an exchange, the same for all levels."""
    conv = nn.Conv2d(dims, dims, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(_GROUPS, dims), nn.ReLU())


def _resize(feat: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(feat.shape[-2:]) == tuple(size):
        return feat
    return F.interpolate(feat, tuple(size), mode="bilinear", align_corners=True)


def _with_coordinates(feat: Tensor) -> Tensor:
    """The map with x and y of its cells, -1..1, as two more channels."""
    height, width = feat.shape[-2:]
    x = torch.linspace(-1, 1, width, device=feat.device, dtype=feat.dtype)
    y = torch.linspace(-1, 1, height, device=feat.device, dtype=feat.dtype)
    cells = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)])
    return torch.cat([feat, cells.expand(len(feat), -1, -1, -1)], 1)
