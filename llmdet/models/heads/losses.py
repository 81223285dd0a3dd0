"""Grounding losses of all layers at once: focal over text tokens, L1 and GIoU over boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from llmdet.models.heads.matching import Targets
from llmdet.models.structures import DenoisingQueries, Matches
from llmdet.models.transformer.boxes import axes_scales, cxcywh_to_xyxy
from llmdet.models.transformer.denoising import denoising_targets
from llmdet.ops.precision import float32_island
from llmdet.registry import MODELS

FOCAL = {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}
L1 = {"type": "L1Loss", "loss_weight": 5.0}
GIOU = {"type": "GIoULoss", "loss_weight": 2.0}
#: What mmdet adds to the number that a sum is divided by.
EPS = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class BoxCount:
    """Number of boxes, at least one, that sums are divided by: a mean over processes.

    Where gradients of several micro-batches are added it is the mean over these, too.
    """

    of_boxes: Tensor  # scalar
    of_classification: Tensor | float  # scalar; without the mean over processes where it is off


class GroundingLoss(nn.Module):
    """Losses of the queries of each layer (Grounding DINO, arXiv 2303.05499, section 3.4).

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

    def average_count(self, count: int, like: Tensor, parts: int = 1) -> BoxCount:
        """What sums over ``count`` boxes are divided by; see :class:`BoxCount`.

        Args:
            count: boxes of all micro-batches of a step on this process.
            like: a tensor on the device.
            parts: micro-batches of the step.
        """
        number = torch.tensor(float(count)).to(like.device, non_blocking=True)
        all_reduce(number, op="mean")
        mean = number.clamp(min=1) / parts
        return BoxCount(mean, mean if self.sync_avg_factor else max(count, 1) / parts)

    def of_layers(
        self,
        logits: Tensor,
        boxes: Tensor,
        targets: Sequence[Targets],
        matches: Sequence[Matches],
        average: BoxCount,
    ) -> dict[str, Tensor]:
        """Losses of matched queries of D layers.

        Args:
            logits: [D, B, Q, L], -inf at padded text.
            boxes: [D, B, Q, 4] cxcywh in 0..1.
            targets: ground truth of the B images.
            matches: of each layer, which query is which box; as many in each layer.
            average: what sums are divided by, see :meth:`average_count`.

        Returns:
            ``loss_cls``, ``loss_bbox`` and ``loss_iou``, [D] each.
        """
        queries = torch.stack([torch.cat(layer.query_indices) for layer in matches])
        matched = torch.stack([torch.cat(layer.box_indices) for layer in matches])
        counts = [len(index) for index in matches[0].query_indices]
        return self._losses(logits, boxes, targets, queries, matched, counts, average)

    def of_denoising(
        self,
        logits: Tensor,
        boxes: Tensor,
        targets: Sequence[Targets],
        denoising: DenoisingQueries,
        average: BoxCount,
    ) -> dict[str, Tensor]:
        """Losses of denoising queries [D, B, M, ...]: positive ones must find their own box."""
        if logits.shape[2] == 0:
            zero = denoising.content.sum() + (logits.sum((1, 2, 3)) + boxes.sum((1, 2, 3)))
            return dict.fromkeys(("loss_cls", "loss_bbox", "loss_iou"), zero * 0)
        pairs = [denoising_targets(denoising, image) for image in range(len(targets))]
        queries = torch.cat([query for query, _ in pairs]).expand(len(logits), -1)
        matched = torch.cat([box for _, box in pairs]).expand(len(logits), -1)
        counts = [len(query) for query, _ in pairs]
        return self._losses(logits, boxes, targets, queries, matched, counts, average)

    @float32_island
    def _losses(
        self,
        logits: Tensor,
        boxes: Tensor,
        targets: Sequence[Targets],
        queries: Tensor,
        matched: Tensor,
        counts: Sequence[int],
        average: BoxCount,
    ) -> dict[str, Tensor]:
        """``queries`` and ``matched`` [D, P]: first the ``counts[0]`` pairs of image 0."""
        layer, image, box = _positions(matched, counts, targets)
        positive = torch.zeros_like(logits)
        positive_maps = torch.cat([target.positive_map for target in targets])
        positive[layer, image, queries] = positive_maps[box].to(logits.dtype)
        valid = logits > float("-inf")
        loss_cls = self.classification(
            logits.masked_fill(~valid, 0.0).flatten(0, 2),
            positive.flatten(0, 2),
            valid.flatten(0, 2).to(logits.dtype),
            reduction_override="none",
        )
        predicted = boxes[layer, image, queries]  # [D, P, 4]
        true = torch.cat([target.boxes for target in targets])[box].to(predicted.dtype)
        pixels = axes_scales([target.size for target in targets], predicted)[image]
        loss_bbox, loss_iou = (
            loss(first.flatten(0, 1), second.flatten(0, 1), reduction_override="none")
            for loss, first, second in (
                (self.l1, predicted, true),
                (self.giou, cxcywh_to_xyxy(predicted) * pixels, cxcywh_to_xyxy(true) * pixels),
            )
        )
        layers = len(logits)
        return {
            "loss_cls": _sums(loss_cls, layers, average.of_classification),
            "loss_bbox": _sums(loss_bbox, layers, average.of_boxes),
            "loss_iou": _sums(loss_iou, layers, average.of_boxes),
        }


def _positions(
    matched: Tensor, counts: Sequence[int], targets: Sequence[Targets]
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer [D, 1], image [P] and box [D, P] among those of all images, of the pairs."""
    image = [number for number, count in enumerate(counts) for _ in range(count)]
    before = [0, *accumulate(len(target.boxes) for target in targets)]
    on_host = torch.tensor([image, [before[number] for number in image]], dtype=torch.int64)
    images, offsets = on_host.to(matched.device, non_blocking=True)
    layer = torch.arange(len(matched), device=matched.device)[:, None]
    return layer, images, matched + offsets


def _sums(loss: Tensor, layers: int, count: Tensor | float) -> Tensor:
    """The sum of each layer [D] over the number of boxes, as mmdet's losses average.

    mmdet's losses of no box are one number, 0.
    """
    if loss.numel() == 0 or loss.dim() == 0:
        return loss.sum().expand(layers)
    return loss.reshape(layers, -1).sum(-1) / (count + EPS)
