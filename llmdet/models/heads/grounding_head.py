"""The head: logits against text, boxes, losses, and detections in the image's own pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from llmdet.models.accumulation import StepTotals, step_totals
from llmdet.models.heads.contrastive import ContrastiveEmbed
from llmdet.models.heads.losses import GroundingLoss
from llmdet.models.heads.matching import HungarianMatcher, Targets
from llmdet.models.structures import (
    DecoderOutput,
    DenoisingQueries,
    HeadOutput,
    Matches,
    QueryProposals,
    TextFeatures,
)
from llmdet.models.transformer.boxes import axes_scales, cxcywh_to_xyxy
from llmdet.models.transformer.decoder import refine
from llmdet.ops.precision import float32_island
from llmdet.registry import MODELS
from llmdet.utils.construct import construct


@MODELS.register_module()
class GroundingDINOHead(BaseModule):
    """One contrastive classifier and one box map per decoder layer, and a last pair for pixels.

    Args:
        contrastive_cfg: settings of :class:`ContrastiveEmbed`.
        num_classes: entries of the denoising label embedding.
        num_layers: decoder layers, D.
        embed_dims: width C of the queries.
        share_boxes: one box map for all decoder layers; that of pixels stays another.
        loss_cls, loss_bbox, loss_iou: losses of the registry; focal, L1 and GIoU by default.
        sync_cls_avg_factor: average the number of matched boxes over all processes.
        train_cfg: ``assigner`` of mmdet's configs.
        max_per_img: most detections of one prompt.
    """

    def __init__(
        self,
        contrastive_cfg: Mapping[str, Any],
        num_classes: int = 256,
        num_layers: int = 6,
        embed_dims: int = 256,
        loss_cls: Mapping[str, Any] | None = None,
        loss_bbox: Mapping[str, Any] | None = None,
        loss_iou: Mapping[str, Any] | None = None,
        sync_cls_avg_factor: bool = True,
        train_cfg: Mapping[str, Any] | None = None,
        max_per_img: int = 300,
        share_boxes: bool = False,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes, self.num_layers = num_classes, num_layers
        self.max_per_img = max_per_img
        self.cls_branches = nn.ModuleList(
            construct(ContrastiveEmbed, contrastive_cfg, "bbox_head.contrastive_cfg")
            for _ in range(num_layers + 1)
        )
        maps = [_box_map(embed_dims) for _ in range(2 if share_boxes else num_layers + 1)]
        self.reg_branches = nn.ModuleList(maps[:1] * (num_layers + 1 - len(maps)) + maps)
        self.matcher = HungarianMatcher.from_config(train_cfg)
        self.losses = GroundingLoss(loss_cls, loss_bbox, loss_iou, sync_cls_avg_factor)

    def init_weights(self) -> None:
        """Start from boxes that stay where they are."""
        super().init_weights()
        for branch in self.reg_branches:
            *_, last = branch.children()
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, decoded: DecoderOutput, text: TextFeatures) -> HeadOutput:
        """Classify and place the queries of every layer.

        Args:
            decoded: hidden states [D, B, Q, C] and the boxes they started from.
            text: text memory, embedded [B, L, C].
        """
        logits, boxes = [], []
        for layer, hidden in enumerate(decoded.hidden_states):
            logits.append(self.cls_branches[layer](hidden, text))
            boxes.append(refine(self.reg_branches[layer](hidden), decoded.references[layer]))
        return HeadOutput(torch.stack(logits), torch.stack(boxes))

    def match(
        self, predictions: HeadOutput, proposals: QueryProposals, targets: Sequence[Targets]
    ) -> list[Matches]:
        """Match decoder layers 0 .. D-1 and then the proposals; no denoising query takes part.

        Args:
            predictions: logits and boxes of the matching queries only.
            proposals: logits and boxes of the two-stage selection.
            targets: ground truth per image.
        """
        return self.matcher(
            [*predictions.logits, proposals.logits],
            [*predictions.boxes, proposals.boxes],
            targets,
        )

    def loss(
        self,
        predictions: HeadOutput,
        proposals: QueryProposals,
        denoising: DenoisingQueries | None,
        targets: Sequence[Targets],
    ) -> tuple[dict[str, Tensor], list[Matches]]:
        """Compute all detection losses.

        Args:
            predictions: all queries, the M denoising ones first.
            proposals: the two-stage selection.
            denoising: layout of the denoising queries; None if there are none.
            targets: ground truth per image.

        Returns:
            Named losses (``loss_cls``, ``d0.loss_cls``, ``enc_loss_cls``, ``dn_loss_cls`` ...)
            and the matches of the decoder layers.
        """
        count = 0 if denoising is None else denoising.content.shape[1]
        matching = HeadOutput(predictions.logits[:, :, count:], predictions.boxes[:, :, count:])
        *matches, proposal_matches = self.match(matching, proposals, targets)
        # Every layer matches as many boxes as there are: one exchange between processes for all.
        matched = sum(len(index) for index in proposal_matches.query_indices)
        noised = 0 if denoising is None else sum(len(index) for index in denoising.box_indices)
        totals = step_totals() or StepTotals(1, noised, matched, fullest=0)
        average = self.losses.average_count(totals.matched, proposals.boxes, totals.parts)
        losses = self._named(
            self.losses.of_layers(
                proposals.logits[None], proposals.boxes[None], targets, [proposal_matches], average
            ),
            ["enc_"],
        )
        layers = [self._prefix(layer) for layer in range(self.num_layers)]
        found = self.losses.of_layers(matching.logits, matching.boxes, targets, matches, average)
        losses |= self._named(found, layers)
        if denoising is not None:
            positive = denoising.num_groups * totals.noised
            average = self.losses.average_count(positive, proposals.boxes, totals.parts)
            found = self.losses.of_denoising(
                predictions.logits[:, :, :count],
                predictions.boxes[:, :, :count],
                targets,
                denoising,
                average,
            )
            losses |= self._named(found, [f"{prefix}dn_" for prefix in layers])
        return losses, matches

    @staticmethod
    def _named(losses: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
        """A loss of each layer, layer by layer, from losses [D]."""
        each = {name: values.unbind() for name, values in losses.items()}
        return {
            f"{prefix}{name}": values[layer]
            for layer, prefix in enumerate(prefixes)
            for name, values in each.items()
        }

    def _prefix(self, layer: int) -> str:
        return "" if layer == self.num_layers - 1 else f"d{layer}."

    @float32_island
    def detect(
        self,
        logits: Tensor,
        boxes: Tensor,
        token_maps: Tensor | None,
        counts: Sequence[int],
        sizes: Sequence[tuple[int, int]],
    ) -> list[InstanceData]:
        """Turn the queries of B pairs of image and text into the best detections of each.

        Args:
            logits: [B, Q, L] of the last layer, -inf at padded text.
            boxes: [B, Q, 4] cxcywh in 0..1 of the valid image.
            token_maps: [B, K, L] bool, the tokens of each class; None scores a query by its best
                token (a referring expression), label 0.
            counts: how many of the K classes each text names.
            sizes: (height, width) of each valid image in pixels.

        Returns:
            Of each pair ``bboxes`` [n, 4] xyxy in pixels of the valid image, ``scores`` [n],
            ``labels`` [n] and ``bbox_index`` [n], the query of each, best first;
            n = min(max_per_img, Q * count).
        """
        scores = _class_scores(logits.sigmoid(), token_maps, counts)  # [B, Q, K]
        classes = scores.shape[2]
        best, flat = scores.flatten(1).topk(min(self.max_per_img, scores[0].numel()))
        query = flat.div(classes, rounding_mode="floor")  # [B, n]
        limits = axes_scales(sizes, boxes)[:, None]
        corners = cxcywh_to_xyxy(boxes.gather(1, query[..., None].expand(-1, -1, 4))) * limits
        corners = corners.clamp(min=0).minimum(limits)
        found = []
        for row, count in enumerate(counts):
            stop = min(self.max_per_img, scores.shape[1] * count)
            found.append(
                InstanceData(
                    bboxes=corners[row, :stop],
                    scores=best[row, :stop],
                    labels=flat[row, :stop] % classes,
                    bbox_index=query[row, :stop],
                )
            )
        return found


def _class_scores(
    probabilities: Tensor, token_maps: Tensor | None, counts: Sequence[int]
) -> Tensor:
    """Mean probability of each class's tokens: [B, Q, K], below zero beyond a text's classes."""
    if token_maps is None:
        return probabilities.amax(-1, keepdim=True)
    weights = token_maps.to(probabilities.dtype)
    # A class without a token, as labels with holes give, is found nowhere.
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
    scores = probabilities @ weights.transpose(1, 2)
    classes = scores.shape[2]
    if min(counts) == classes:
        return scores
    absent = torch.arange(classes) >= torch.tensor(counts)[:, None]
    return scores.masked_fill(absent[:, None].to(scores.device, non_blocking=True), -1.0)


def _box_map(embed_dims: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(embed_dims, embed_dims),
        nn.ReLU(),
        nn.Linear(embed_dims, embed_dims),
        nn.ReLU(),
        nn.Linear(embed_dims, 4),
    )
