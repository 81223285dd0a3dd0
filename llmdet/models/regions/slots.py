"""From what towers see to the tokens that fill the slots of conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from llmdet.datasets.masks import decode_mask
from llmdet.datasets.sample import Regions, grounding_of
from llmdet.errors import ConfigError, DataError
from llmdet.models.regions.base import RegionBatch, RegionEncoder, batch_regions
from llmdet.models.regions.coverage import filled_boxes
from llmdet.models.vision.views import TowerOutput
from llmdet.prompts.conversation import TokenizedConversation
from llmdet.registry import MODELS
from llmdet.utils.construct import construct

Config = Mapping[str, Any]
Tokens = Sequence[Sequence[TokenizedConversation]]
KINDS = ("image", "region")


@dataclass(frozen=True)
class SlotSettings:
    """What fills the marks of one kind.

    Attributes:
        tower: name of the tower that is read.
        encoder: region encoder, of the registry.
        connector: of the registry, or the kind whose connector this one shares.
    """

    tower: str
    encoder: Config
    connector: Config | str = field(default_factory=lambda: {"type": "MLPConnector"})


def named_slots(slots: Mapping[str, Config], towers: nn.ModuleDict) -> dict[str, SlotSettings]:
    """The settings of a config, checked against the towers that there are.

    Raises:
        ConfigError: a kind, a tower or a connector does not exist.
    """
    settings = {
        kind: construct(SlotSettings, given, f"model.slots.{kind}") for kind, given in slots.items()
    }
    for kind, slot in settings.items():
        if kind not in KINDS:
            raise ConfigError(f"model.slots has the kind {kind!r}; known: {', '.join(KINDS)}")
        if slot.tower not in towers:
            raise ConfigError(
                f"model.slots.{kind}.tower={slot.tower!r} is none of model.towers: "
                f"{', '.join(towers) or 'none'}"
            )
        if isinstance(slot.connector, str):
            shared = settings.get(slot.connector)
            if slot.connector == kind or shared is None or isinstance(shared.connector, str):
                raise ConfigError(
                    f"model.slots.{kind}.connector={slot.connector!r} names no kind that has a "
                    "connector"
                )
    return settings


class SlotFiller(nn.Module):
    """Region encoders and connectors: features of images and regions, in the order of slots.

    Args:
        settings: of each kind.
        towers: by name; not a part of this module.
        hidden_size: width H of the language model.
    """

    def __init__(
        self, settings: Mapping[str, SlotSettings], towers: nn.ModuleDict, hidden_size: int
    ) -> None:
        super().__init__()
        self.settings = dict(settings)
        self.encoders, self.connectors = nn.ModuleDict(), nn.ModuleDict()
        for kind, slot in self.settings.items():
            encoder: RegionEncoder = MODELS.build(slot.encoder)
            self.encoders[kind] = encoder
            if not isinstance(slot.connector, str):
                tower: Any = towers[slot.tower]
                in_dims = encoder.out_dims(getattr(tower, "map_dims", tower.dims))
                widths = {"in_dims": in_dims, "hidden_size": hidden_size}
                self.connectors[kind] = MODELS.build(slot.connector, default_args=widths)

    @property
    def lengths(self) -> tuple[tuple[str, int], ...]:
        """(kind, tokens) of every kind of mark."""
        return tuple(
            (kind, sum(encoder.lengths))  # type: ignore[arg-type]
            for kind, encoder in self.encoders.items()
        )

    def forward(
        self, seen: Mapping[str, TowerOutput], samples: Sequence[DetDataSample], tokens: Tokens
    ) -> dict[str, Tensor]:
        """Features [n, H] for each kind that the conversations mark.

        Args:
            seen: of each tower, of B images.
            samples: B of them, with their regions.
            tokens: the conversations of each sample.

        Raises:
            DataError: a conversation marks an image or a region that its sample does not have.
        """
        found = {}
        for kind, slot in self.settings.items():
            wanted, place = _marked(kind, tokens)
            if not place:
                continue
            output = seen[slot.tower]
            regions = _regions(kind, wanted, samples, output)
            encoded = self.encoders[kind](output, regions)
            owner = slot.connector if isinstance(slot.connector, str) else kind
            filled = self.connectors[owner](encoded.features, encoded.boxes)  # [U, k, H]
            index = torch.tensor(place).to(filled.device, non_blocking=True)
            found[kind] = filled[index].flatten(0, 1)
        return found


def _marked(kind: str, tokens: Tokens) -> tuple[list[list[int]], list[int]]:
    """Which images or regions of each sample are marked, and which of these each slot stands for.

    One that is marked several times is encoded once.
    """
    wanted: list[list[int]] = []
    place: list[int] = []
    start = 0
    for conversations in tokens:
        unique: dict[int, int] = {}
        for slot in (slot for each in conversations for slot in each.slots if slot.kind == kind):
            place.append(start + unique.setdefault(slot.index, len(unique)))
        wanted.append(list(unique))
        start += len(unique)
    return wanted, place


def _regions(
    kind: str,
    wanted: Sequence[Sequence[int]],
    samples: Sequence[DetDataSample],
    seen: TowerOutput,
) -> RegionBatch:
    """The marked regions, or the whole image for marks of images."""
    device = seen.frame.scale.device
    counts = [len(indices) for indices in wanted]
    known = [grounding_of(sample).regions for sample in samples]
    for sample, (indices, regions) in enumerate(zip(wanted, known, strict=True)):
        there = 1 if kind == "image" else len(regions)
        if indices and max(indices) >= there:
            raise DataError(
                f"a conversation of sample {sample} of the batch marks {kind} {max(indices)} "
                f"(counted from 0), but the sample has {there}"
            )
    if kind == "image":
        return batch_regions(counts, device)
    pairs = list(zip(wanted, known, strict=True))
    boxes = [torch.from_numpy(regions.boxes[list(indices)]) for indices, regions in pairs]
    batch = batch_regions(counts, device, boxes=torch.cat(boxes).float().to(device))
    if all(regions.masks is None for regions in known):
        return batch
    masks = [
        region_mask(regions, index, size)
        for (indices, regions), size in zip(pairs, seen.frame.original_sizes, strict=True)
        for index in indices
    ]
    outlined = tuple(
        regions.masks is not None and regions.masks[index] is not None
        for indices, regions in pairs
        for index in indices
    )
    moved = tuple(mask.to(device, non_blocking=True) for mask in masks)
    return replace(batch, masks=moved, outlined=outlined)


def region_mask(regions: Regions, index: int, size: tuple[int, int]) -> Tensor:
    """The mask [h, w] bool of a region, its filled box where it has none."""
    mask = None if regions.masks is None else regions.masks[index]
    if mask is None:
        return filled_boxes(torch.from_numpy(regions.boxes[index : index + 1]), size)[0]
    return torch.from_numpy(decode_mask(mask, size))
