"""Regions as what they are given as: an object that the detector found, a box, or a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from llmdet.errors import ConfigError
from llmdet.models.transformer.boxes import cxcywh_to_xyxy
from llmdet.models.vision.views import TowerOutput
from llmdet.registry import MODELS

from .base import RegionBatch, RegionEncoder, RegionFeatures

#: Kinds of regions, in the order of their channels.
QUERY, ROI, MASK = range(3)


@MODELS.register_module()
class AnyRegion(RegionEncoder):
    """One token a region, by the encoder that suits it; each has channels of its own.

    A region with a mask is pooled over it. A box that an object query of the detector fits is that
    query; any other box is aligned. The channels of the two other encoders are zeros, so that the
    connector's first map has weights for each. While the model trains, each region is drawn to be
    one of the kinds that it can be, so that all are learned from rows with boxes and masks.

    Args:
        query: of the registry, for objects of a detector with queries.
        roi: for boxes.
        mask: for masks.
        overlap: least IoU of a query's box with a box that it stands for.
    """

    def __init__(
        self,
        query: Mapping[str, Any] | None = None,
        roi: Mapping[str, Any] | None = None,
        mask: Mapping[str, Any] | None = None,
        overlap: float = 0.7,
    ) -> None:
        super().__init__()
        given = query or {"type": "ObjectQueries"}, roi or {"type": "RoIAlign"}
        self.encoders = nn.ModuleList(map(MODELS.build, (*given, mask or {"type": "MaskPool"})))
        self.overlap = overlap
        self.dims: list[int] = []
        if any(encoder.lengths != (1,) for encoder in self._each):
            raise ConfigError("AnyRegion: its encoders must make one token of a region")

    @property
    def _each(self) -> list[RegionEncoder]:
        return list(self.encoders)  # type: ignore[arg-type]

    def out_dims(self, in_dims: int | Sequence[int]) -> int:
        """Channels of all three."""
        self.dims = [encoder.out_dims(in_dims) for encoder in self._each]
        return sum(self.dims)

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the regions, which need boxes."""
        if regions.boxes is None:
            raise ConfigError("AnyRegion names regions: give boxes, with masks or without")
        kinds = self.kinds(seen, regions)
        features = seen.frame.scale.new_zeros(len(regions), 1, sum(self.dims))
        places = seen.frame.relative_boxes(regions.boxes.float(), regions.image)[:, None]
        ends = list(accumulate(self.dims))
        for kind, (encoder, end) in enumerate(zip(self._each, ends, strict=True)):
            chosen = [number for number, each in enumerate(kinds) if each == kind]
            if chosen:
                made = encoder(seen, regions.select(chosen))
                index = torch.tensor(chosen).to(features.device, non_blocking=True)
                channels = slice(end - self.dims[kind], end)
                features[index, :, channels] = made.features.to(features.dtype)
                places = places.index_copy(0, index, made.boxes.to(places.dtype))
        return RegionFeatures(features, places)

    def kinds(self, seen: TowerOutput, regions: RegionBatch) -> list[int]:
        """What each of the R regions is read as: QUERY, ROI or MASK."""
        found = self._found(seen, regions).tolist()
        outlined = regions.outlined or [False] * len(regions)
        if not self.training:
            pairs = zip(found, outlined, strict=True)
            return [MASK if has_mask else QUERY if fits else ROI for fits, has_mask in pairs]
        drawn = torch.rand(len(regions)).tolist()
        kinds = []
        for number, fits, has_mask in zip(drawn, found, outlined, strict=True):
            possible = [ROI, *([QUERY] if fits else []), *([MASK] if has_mask else [])]
            kinds.append(possible[int(number * len(possible))])
        return kinds

    def _found(self, seen: TowerOutput, regions: RegionBatch) -> Tensor:
        """[R] bool: whether an object query has the region's box."""
        queries = getattr(seen, "query_boxes", None)
        if queries is None or regions.boxes is None:
            return torch.zeros(len(regions), dtype=torch.bool)
        corners = cxcywh_to_xyxy(queries)
        places = seen.frame.relative_boxes(regions.boxes.float(), regions.image).to(corners)
        parts = zip(places.split(list(regions.counts)), corners, strict=True)
        overlaps = [box_iou(part, boxes).amax(1) for part, boxes in parts]
        return torch.cat(overlaps) >= self.overlap
