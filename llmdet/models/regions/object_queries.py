"""Regions as the object queries of a detector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from llmdet.errors import ConfigError
from llmdet.models.transformer.boxes import cxcywh_to_xyxy
from llmdet.models.vision.detector_memory import DetectorOutput
from llmdet.models.vision.views import TowerOutput
from llmdet.registry import MODELS

from .base import RegionBatch, RegionEncoder, RegionFeatures


@MODELS.register_module()
class ObjectQueries(RegionEncoder):
    """One token a region: the query that is known to stand for it, or whose box fits it best.

    It stands at the box of a query that is known, as in training, or else at the region's.
    """

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the queries."""
        queries, boxes = _queries_of(seen)
        corners = cxcywh_to_xyxy(boxes)  # [B, Q, 4]
        chosen = regions.queries
        if chosen is not None:
            places = corners[regions.image, chosen]
        elif regions.boxes is not None:
            places = seen.frame.relative_boxes(regions.boxes, regions.image).to(corners)
            chosen = _nearest(corners, regions, places)
        else:
            raise ConfigError("ObjectQueries names regions: give boxes, or use AllQueries")
        return RegionFeatures(queries[regions.image, chosen][:, None], places[:, None])


@MODELS.register_module()
class AllQueries(RegionEncoder):
    """Tokens of the whole image, whatever box a region has: all object queries.

    Args:
        count: Q, ``num_queries`` of the detector.
    """

    def __init__(self, count: int = 900) -> None:
        super().__init__()
        self.lengths = (count,)

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the queries in their order.

        Raises:
            ConfigError: the detector has another number of queries.
        """
        queries, boxes = _queries_of(seen)
        if queries.shape[1] != self.lengths[0]:
            raise ConfigError(
                f"AllQueries(count={self.lengths[0]}) sees {queries.shape[1]} object queries; set "
                "count to the detector's num_queries"
            )
        return RegionFeatures(queries[regions.image], cxcywh_to_xyxy(boxes)[regions.image])


@MODELS.register_module()
class BestQueries(RegionEncoder):
    """Tokens of the whole image, whatever box a region has: its best object queries, as one reads.

    They stand row by row from the top, and from left to right in each row; a row is a third of
    the image's height.

    Args:
        count: how many, at most ``num_queries`` of the detector.
        width: channels of its features, zeros behind those of a query, so that a connector can be
            shared with :class:`AnyRegion`; None for those of a query alone.
    """

    rows = 3

    def __init__(self, count: int, width: int | None = None) -> None:
        super().__init__()
        self.lengths, self.width = (count,), width

    def out_dims(self, in_dims: int | Sequence[int]) -> int:
        """Width of its features."""
        return self.width or super().out_dims(in_dims)

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the queries with the highest scores.

        Raises:
            ConfigError: the detector has fewer queries, or gives no scores of them.
        """
        queries, boxes = _queries_of(seen)
        scores = getattr(seen, "query_scores", None)
        count = self.lengths[0]
        if scores is None or scores.shape[1] < count:
            known = "no scores" if scores is None else f"{scores.shape[1]} object queries"
            raise ConfigError(
                f"BestQueries(count={count}) sees {known}; set count to at most the detector's "
                "num_queries"
            )
        chosen = scores.topk(count, dim=1).indices  # [B, count]
        x, y = boxes[..., :2].gather(1, chosen[..., None].expand(-1, -1, 2)).unbind(-1)
        row = (self.rows * y).floor().clamp(0, self.rows - 1)
        order = chosen.gather(1, (2 * row + x).argsort(dim=1, stable=True))[regions.image]
        image = regions.image[:, None]
        features = queries[image, order]
        if self.width is not None:
            features = F.pad(features, (0, self.width - features.shape[-1]))
        return RegionFeatures(features, cxcywh_to_xyxy(boxes[image, order]))


def _queries_of(seen: TowerOutput) -> tuple[Tensor, Tensor]:
    if not isinstance(seen, DetectorOutput) or seen.queries is None or seen.query_boxes is None:
        raise ConfigError(
            "object queries exist only where a detector's decoder has run; use GridCells, or a "
            "detector that is not frozen for alignment"
        )
    return seen.queries, seen.query_boxes


def _nearest(corners: Tensor, regions: RegionBatch, places: Tensor) -> Tensor:
    """The query [R] whose box overlaps most with each region; image after image."""
    parts = places.split(list(regions.counts))
    pairs = zip(parts, corners, strict=True)
    return torch.cat([box_iou(part, boxes).argmax(1) for part, boxes in pairs])
