"""Grounding losses of one layer: focal over text tokens, L1 and GIoU over boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from llmdet.models.heads.matching import Targets
from llmdet.models.structures import DenoisingQueries, Matches
from llmdet.models.transformer.boxes import cxcywh_to_xyxy
from llmdet.models.transformer.denoising import denoising_targets
from llmdet.ops.precision import float32_island
from llmdet.registry import MODELS

FOCAL = {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}
L1 = {"type": "L1Loss", "loss_weight": 5.0}
GIOU = {"type": "GIoULoss", "loss_weight": 2.0}


class GroundingLoss(nn.Module):
    """Losses of the queries of one layer (Grounding DINO, arXiv 2303.05499, section 3.4).

    Args:
        loss_cls: element-wise loss of logits against 0/1 targets.
        loss_bbox: loss of cxcywh boxes in 0..1.
        loss_iou: loss of xyxy boxes in pixels.
        sync_avg_factor: average the classification's number of boxes over all processes.
    """

    def __init__(
        self,
        loss_cls: Mapping[str, Any] | None = None,
        loss_bbox: Mapping[str, Any] | None = None,
        loss_iou: Mapping[str, Any] | None = None,
        sync_avg_factor: bool = True,
    ) -> None:
        super().__init__()
        self.classification = MODELS.build(loss_cls or FOCAL)
        self.l1 = MODELS.build(loss_bbox or L1)
        self.giou = MODELS.build(loss_iou or GIOU)
        self.sync_avg_factor = sync_avg_factor

    @staticmethod
    def average_count(count: int, like: Tensor) -> Tensor:
        """Mean over all processes of a number of matched boxes, at least one; a scalar."""
        number = torch.tensor(float(count)).to(like.device, non_blocking=True)
        all_reduce(number, op="mean")
        return number.clamp(min=1)

    def of_layer(
        self,
        logits: Tensor,
        boxes: Tensor,
        targets: Sequence[Targets],
        matches: Matches,
        average: Tensor,
        prefix: str,
    ) -> dict[str, Tensor]:
        """Losses of matched queries.

        Args:
            logits: [B, Q, L], -inf at padded text.
            boxes: [B, Q, 4] cxcywh in 0..1.
            targets: ground truth per image.
            matches: which query is which box.
            average: what sums are divided by, see :meth:`average_count`.
            prefix: put before ``loss_cls``, ``loss_bbox`` and ``loss_iou``.
        """
        pairs = (matches.query_indices, matches.box_indices)
        return self._losses(logits, boxes, targets, *pairs, average, prefix)

    def of_denoising(
        self,
        logits: Tensor,
        boxes: Tensor,
        targets: Sequence[Targets],
        denoising: DenoisingQueries,
        average: Tensor,
        prefix: str,
    ) -> dict[str, Tensor]:
        """Losses of denoising queries [B, M, ...]: positive ones must find their own box."""
        if logits.shape[1] == 0:
            zero = denoising.content.sum() + logits.sum() + boxes.sum()
            return {f"{prefix}loss_{name}": zero * 0 for name in ("cls", "bbox", "iou")}
        pairs = [denoising_targets(len(t.boxes), denoising, logits.device) for t in targets]
        queries, matched = zip(*pairs, strict=True)
        return self._losses(logits, boxes, targets, queries, matched, average, prefix)

    @float32_island
    def _losses(
        self,
        logits: Tensor,
        boxes: Tensor,
        targets: Sequence[Targets],
        queries: Sequence[Tensor],
        matched: Sequence[Tensor],
        average: Tensor,
        prefix: str,
    ) -> dict[str, Tensor]:
        count = sum(len(index) for index in queries)
        positive = torch.zeros_like(logits)
        for image, (query, box, target) in enumerate(zip(queries, matched, targets, strict=True)):
            positive[image, query] = target.positive_map[box].to(logits.dtype)
        valid = logits > float("-inf")
        loss_cls = self.classification(
            logits.masked_fill(~valid, 0.0).flatten(0, 1),
            positive.flatten(0, 1),
            valid.flatten(0, 1).to(logits.dtype),
            avg_factor=average if self.sync_avg_factor else max(count, 1),
        )
        predicted = torch.cat([boxes[i, query] for i, query in enumerate(queries)])
        true = torch.cat([t.boxes[box] for t, box in zip(targets, matched, strict=True)])
        pixels = torch.cat([_pixels(t, len(q)) for t, q in zip(targets, queries, strict=True)])
        pixels = pixels.to(boxes.device, non_blocking=True)
        true = true.to(predicted.dtype)
        return {
            f"{prefix}loss_cls": loss_cls,
            f"{prefix}loss_bbox": self.l1(predicted, true, avg_factor=average),
            f"{prefix}loss_iou": self.giou(
                cxcywh_to_xyxy(predicted) * pixels,
                cxcywh_to_xyxy(true) * pixels,
                avg_factor=average,
            ),
        }


def _pixels(target: Targets, count: int) -> Tensor:
    height, width = target.size
    return torch.tensor([width, height, width, height], dtype=torch.float32).expand(count, 4)
