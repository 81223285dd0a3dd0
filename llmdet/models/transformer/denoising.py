"""Contrastive denoising: noised ground truth joins the queries while training (2203.03605)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import get_rank
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.accumulation import step_totals
from llmdet.models.structures import DenoisingQueries
from llmdet.models.transformer.boxes import inverse_sigmoid, xyxy_to_cxcywh
from llmdet.ops.precision import float32_island
from llmdet.utils.construct import construct


@dataclass(frozen=True)
class GroupSettings:
    """How many groups of noised boxes there are.

    Attributes:
        dynamic: share ``num_dn_queries`` among groups, each of which has all boxes of the
            fullest image; otherwise there are always ``num_groups``.
        num_groups, num_dn_queries: the one that ``dynamic`` asks for is needed.
        max_boxes: of an image with more, so many are noised, others in every step; by default as
            many as there are matching queries, which can find no more either. Self-attention
            takes time and memory by its square.
    """

    dynamic: bool = True
    num_groups: int | None = None
    num_dn_queries: int | None = None
    max_boxes: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self._budget, int) or self._budget < 1:
            raise ConfigError(
                "model.dn_cfg.group_cfg needs dynamic=True with num_dn_queries >= 1, "
                f"or dynamic=False with num_groups >= 1; got {vars(self)}"
            )
        if self.max_boxes is not None and (type(self.max_boxes) is not int or self.max_boxes < 1):
            raise ConfigError(
                f"model.dn_cfg.group_cfg.max_boxes={self.max_boxes!r}; give a whole number from 1, "
                "or None for the number of matching queries"
            )

    @property
    def _budget(self) -> int | None:
        return self.num_dn_queries if self.dynamic else self.num_groups

    def number(self, max_boxes: int) -> int:
        """Number of groups for a batch whose fullest image has ``max_boxes`` boxes."""
        budget = self._budget or 1
        if not self.dynamic:
            return budget
        return max(1, budget // max_boxes) if max_boxes else 1


class DenoisingQueryGenerator(nn.Module):
    """Makes groups of noised boxes, half of them near the truth (positive), half farther away.

    Args:
        num_classes: entries of the label embedding; labels are the instances' label ids.
        embed_dims: width C of the queries.
        num_matching_queries: Q, for the attention mask and as ``max_boxes``.
        label_noise_scale: twice the share of labels replaced by random ones.
        box_noise_scale: 1.0 moves positive corners by up to half the box's size, and negative
            ones by up to the whole.
        group_cfg: settings of :class:`GroupSettings`.
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
        settings = {"num_dn_queries": 100} if group_cfg is None else group_cfg
        self.groups = construct(GroupSettings, settings, "model.dn_cfg.group_cfg")
        self.num_matching_queries = num_matching_queries
        self.max_boxes = self.groups.max_boxes or num_matching_queries
        self.label_noise_scale, self.box_noise_scale = label_noise_scale, box_noise_scale
        self.label_embedding = nn.Embedding(num_classes, embed_dims)

    def forward(self, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> DenoisingQueries:
        """Make the denoising queries of a batch.

        Args:
            boxes: per image [N_i, 4] xyxy in 0..1 of the valid image.
            labels: per image [N_i] int64 label ids, taken modulo ``num_classes``.

        Returns:
            2 x groups x max(N_i) queries an image, zero where an image has fewer boxes; the
            maximum is over all micro-batches of a step, and N_i at most ``max_boxes``.
        """
        totals = step_totals()
        fullest = max(len(b) for b in boxes) if totals is None else totals.fullest
        places = self.number_of_noised(fullest)  # of an image in a group
        groups = self.groups.number(places)
        random = _random_numbers(boxes[0].device)
        chosen = [self._choose(len(b), b.device, random) for b in boxes]
        counts = [len(index) for index in chosen]
        flat_labels = torch.cat([b[index] for b, index in zip(labels, chosen, strict=True)])
        flat_boxes = torch.cat([b[index] for b, index in zip(boxes, chosen, strict=True)])
        noisy_labels = self.noise_labels(flat_labels, groups, random)
        noisy_boxes = self.noise_boxes(flat_boxes, groups, random)
        content = self.label_embedding(noisy_labels)
        return DenoisingQueries(
            content=_collate(content, counts, groups, places),
            boxes_unact=_collate(noisy_boxes, counts, groups, places),
            attention_mask=self._attention_mask(places, groups, content.device),
            num_groups=groups,
            queries_per_group=2 * places,
            box_indices=tuple(chosen),
        )

    def number_of_noised(self, count: int) -> int:
        """How many of an image's ``count`` boxes are noised."""
        return min(count, self.max_boxes)

    def _choose(self, count: int, device: torch.device, random: torch.Generator) -> Tensor:
        """Which of an image's boxes are noised, [n] in rising order."""
        if count <= self.max_boxes:
            return torch.arange(count, device=device)
        drawn = torch.randperm(count, generator=random, device=device)
        return drawn[: self.max_boxes].sort().values

    def noise_labels(self, labels: Tensor, groups: int, random: torch.Generator) -> Tensor:
        """Replace a share of the labels [N], repeated 2 x ``groups`` times, by random ones."""
        # Regions of a sentence are numbered without limit; the embedding has only so many rows.
        classes = self.label_embedding.num_embeddings
        repeated = labels.repeat(2 * groups) % classes
        draw: dict[str, Any] = {"generator": random, "device": repeated.device}
        replaced = torch.rand(repeated.shape, **draw) < self.label_noise_scale * 0.5
        return torch.where(replaced, torch.randint(classes, repeated.shape, **draw), repeated)

    @float32_island
    def noise_boxes(self, boxes: Tensor, groups: int, random: torch.Generator) -> Tensor:
        """Move the corners of xyxy boxes [N, 4], repeated 2 x ``groups`` times.

        Returns:
            [2 * groups * N, 4] inverse sigmoid of cxcywh; of each group the first N are positive.
        """
        repeated = boxes.repeat(2 * groups, 1)
        draw: dict[str, Any] = {
            "generator": random,
            "device": repeated.device,
            "dtype": repeated.dtype,
        }
        sign = torch.randint(2, repeated.shape, **draw) * 2 - 1
        amount = torch.rand(repeated.shape, **draw).view(groups, 2, -1, 4)
        distance = torch.arange(2, device=boxes.device).view(1, 2, 1, 1)  # negative ones: farther
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


def _random_numbers(device: torch.device) -> torch.Generator:
    """A source of noise that is another one in every process of a run, and in every step.

    A run seeds all its processes alike, so that they start from the same weights; images of two
    processes should not get the same noise.
    """
    seed = int(torch.randint(2**62, ())) + get_rank()  # on the host, nothing waits for a device
    return torch.Generator(device).manual_seed(seed)


def _collate(flat: Tensor, counts: Sequence[int], groups: int, places: int) -> Tensor:
    """Spread [2 * groups * sum(N_i), D] over the images: [B, 2 * groups * places, D]."""
    per_image = flat.view(2 * groups, sum(counts), flat.shape[-1]).split(list(counts), dim=1)
    padded = [
        torch.nn.functional.pad(part, (0, 0, 0, places - part.shape[1])) for part in per_image
    ]
    return torch.stack([part.flatten(0, 1) for part in padded])


def denoising_targets(dn: DenoisingQueries, image: int) -> tuple[Tensor, Tensor]:
    """Which denoising queries of an image are positive, and which box each one is.

    Returns:
        query indices [groups * n] and box indices [groups * n], int64, for n noised boxes.
    """
    chosen = dn.box_indices[image]
    starts = torch.arange(dn.num_groups, device=chosen.device) * dn.queries_per_group
    places = torch.arange(len(chosen), device=chosen.device)
    return (starts[:, None] + places).flatten(), chosen.repeat(dn.num_groups)
