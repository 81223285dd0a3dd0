"""Contrastive denoising: noised ground truth joins the queries while training (2203.03605)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.structures import DenoisingQueries
from llmdet.models.transformer.boxes import inverse_sigmoid, xyxy_to_cxcywh
from llmdet.ops.precision import float32_island


class DenoisingQueryGenerator(nn.Module):
    """Makes groups of noised boxes, half of them near the truth (positive), half farther away.

    Args:
        num_classes: entries of the label embedding; labels are the instances' label ids.
        embed_dims: width C of the queries.
        num_matching_queries: Q, for the attention mask.
        label_noise_scale: twice the share of labels replaced by random ones.
        box_noise_scale: 1.0 moves positive corners by up to half the box's size, and negative
            ones by up to the whole.
        group_cfg: ``dynamic`` (share ``num_dn_queries`` among groups) or fixed ``num_groups``.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dims: int,
        num_matching_queries: int,
        label_noise_scale: float = 0.5,
        box_noise_scale: float = 1.0,
        group_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        group_cfg = group_cfg or {"dynamic": True, "num_dn_queries": 100}
        self.dynamic = group_cfg.get("dynamic", True)
        budget = group_cfg.get("num_dn_queries" if self.dynamic else "num_groups")
        if not isinstance(budget, int) or budget < 1:
            raise ConfigError(
                "dn_cfg.group_cfg needs dynamic=True with num_dn_queries >= 1, "
                f"or dynamic=False with num_groups >= 1; got {dict(group_cfg)}"
            )
        self.budget: int = budget
        self.num_matching_queries = num_matching_queries
        self.label_noise_scale, self.box_noise_scale = label_noise_scale, box_noise_scale
        self.label_embedding = nn.Embedding(num_classes, embed_dims)

    def num_groups(self, max_boxes: int) -> int:
        """Number of groups for a batch whose fullest image has ``max_boxes`` boxes."""
        if not self.dynamic:
            return self.budget
        return max(1, self.budget // max_boxes) if max_boxes else 1

    def forward(self, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> DenoisingQueries:
        """Make the denoising queries of a batch.

        Args:
            boxes: per image [N_i, 4] xyxy in 0..1 of the valid image.
            labels: per image [N_i] int64 label ids, taken modulo ``num_classes``.

        Returns:
            2 x groups x max(N_i) queries an image, zero where an image has fewer boxes.
        """
        counts = [len(b) for b in boxes]
        groups = self.num_groups(max(counts))
        noisy_labels = self.noise_labels(torch.cat(list(labels)), groups)
        noisy_boxes = self.noise_boxes(torch.cat(list(boxes)), groups)
        content = self.label_embedding(noisy_labels)
        return DenoisingQueries(
            content=_collate(content, counts, groups),
            boxes_unact=_collate(noisy_boxes, counts, groups),
            attention_mask=self._attention_mask(max(counts), groups, content.device),
            num_groups=groups,
            queries_per_group=2 * max(counts),
        )

    def noise_labels(self, labels: Tensor, groups: int) -> Tensor:
        """Replace a share of the labels [N], repeated 2 x ``groups`` times, by random ones."""
        # Regions of a sentence are numbered without limit; the embedding has only so many rows.
        repeated = labels.repeat(2 * groups) % self.label_embedding.num_embeddings
        replaced = torch.rand_like(repeated, dtype=torch.float) < self.label_noise_scale * 0.5
        random = torch.randint_like(repeated, 0, self.label_embedding.num_embeddings)
        return torch.where(replaced, random, repeated)

    @float32_island
    def noise_boxes(self, boxes: Tensor, groups: int) -> Tensor:
        """Move the corners of xyxy boxes [N, 4], repeated 2 x ``groups`` times.

        Returns:
            [2 * groups * N, 4] inverse sigmoid of cxcywh; of each group the first N are positive.
        """
        repeated = boxes.repeat(2 * groups, 1)
        sign = torch.randint_like(repeated, 0, 2) * 2 - 1
        amount = torch.rand_like(repeated).view(groups, 2, -1, 4)
        distance = torch.tensor([0.0, 1.0], device=boxes.device).view(1, 2, 1, 1)
        shift = (amount + distance).view_as(repeated) * sign
        sizes = xyxy_to_cxcywh(repeated)[:, 2:].repeat(1, 2)
        noisy = (repeated + shift * sizes * self.box_noise_scale / 2).clamp(0.0, 1.0)
        return inverse_sigmoid(xyxy_to_cxcywh(noisy), eps=1e-3)

    def _attention_mask(self, max_boxes: int, groups: int, device: torch.device) -> Tensor:
        """Matching queries see no denoising query, and groups do not see each other."""
        per_group = 2 * max_boxes
        group = torch.arange(groups, device=device).repeat_interleave(per_group)
        # Matching queries form the group -1, which all may look at.
        group = torch.cat([group, group.new_full((self.num_matching_queries,), -1)])
        return (group[:, None] != group[None]) & (group[None] >= 0)


def _collate(flat: Tensor, counts: Sequence[int], groups: int) -> Tensor:
    """Spread [2 * groups * sum(N_i), D] over the images: [B, 2 * groups * max(N_i), D]."""
    per_image = flat.view(2 * groups, sum(counts), flat.shape[-1]).split(list(counts), dim=1)
    padded = [
        torch.nn.functional.pad(part, (0, 0, 0, max(counts) - part.shape[1])) for part in per_image
    ]
    return torch.stack([part.flatten(0, 1) for part in padded])


def denoising_targets(
    count: int, dn: DenoisingQueries, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Which denoising queries of an image are positive, and which box each one is.

    Args:
        count: N, number of boxes of the image.

    Returns:
        query indices [groups * N] and box indices [groups * N], int64.
    """
    boxes = torch.arange(count, device=device).repeat(dn.num_groups)
    starts = torch.arange(dn.num_groups, device=device) * dn.queries_per_group
    return (starts[:, None] + torch.arange(count, device=device)).flatten(), boxes
