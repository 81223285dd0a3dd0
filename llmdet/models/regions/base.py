"""What region encoders read and what they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.vision.views import TowerOutput


@dataclass(frozen=True)
class RegionBatch:
    """R regions of B images, image after image."""

    image: Tensor  # [R] int64 in 0..B-1
    counts: tuple[int, ...]  # B, regions of each image
    boxes: Tensor | None = None  # [R, 4] float32 xyxy in pixels of the original image; None: all
    masks: tuple[Tensor, ...] | None = None  # R of [h, w] bool, of the original image
    queries: Tensor | None = None  # [R] int64, the object query of each region, where known
    #: R, whether each mask is one that was given, and not a filled box; None where none was.
    outlined: tuple[bool, ...] | None = None

    def __len__(self) -> int:
        return len(self.image)

    def split(self, size: int) -> list[RegionBatch]:
        """The same regions in batches of at most ``size``; their images keep their numbers."""
        starts = range(0, len(self), size)
        return [self.select(range(start, min(start + size, len(self)))) for start in starts]

    def select(self, chosen: Sequence[int]) -> RegionBatch:
        """Some of the regions, by rising numbers; their images keep their numbers."""
        ends = list(accumulate(self.counts))
        counts = tuple(
            sum(end - count <= number < end for number in chosen)
            for end, count in zip(ends, self.counts, strict=True)
        )
        index = torch.tensor(list(chosen), dtype=torch.int64).to(
            self.image.device, non_blocking=True
        )
        masks, outlined = self.masks, self.outlined
        return replace(
            self,
            image=self.image[index],
            counts=counts,
            boxes=None if self.boxes is None else self.boxes[index],
            masks=None if masks is None else tuple(masks[number] for number in chosen),
            queries=None if self.queries is None else self.queries[index],
            outlined=None if outlined is None else tuple(outlined[number] for number in chosen),
        )


def batch_regions(
    counts: Sequence[int],
    device: torch.device,
    *,
    boxes: Tensor | None = None,
    queries: Tensor | None = None,
) -> RegionBatch:
    """Regions of B images by their number in each; the host does not wait for the device."""
    image = [number for number, count in enumerate(counts) for _ in range(count)]
    on_device = torch.tensor(image, dtype=torch.int64).to(device, non_blocking=True)
    return RegionBatch(on_device, tuple(counts), boxes=boxes, queries=queries)


@dataclass(frozen=True)
class RegionFeatures:
    """k tokens for each of R regions."""

    features: Tensor  # [R, k, C]
    boxes: Tensor  # [R, k, 4] xyxy in 0..1 of the valid image, what each token stands for


class RegionEncoder(nn.Module):
    """Base of region encoders; register one in ``MODELS`` to name it in a config."""

    #: The map that it reads, where it reads one.
    level: int = -1
    #: Tokens of a region, group by group; a captioner may put a separator between groups.
    lengths: tuple[int, ...] = (1,)

    def out_dims(self, in_dims: int | Sequence[int]) -> int:
        """Width of its features.

        Args:
            in_dims: width of the tower's maps, of each of them where they differ.
        """
        return dims_of_levels(in_dims, [self.level])[0]

    def forward(self, seen: TowerOutput, regions: RegionBatch) -> RegionFeatures:
        """Features of the regions; k is the sum of ``lengths``."""
        raise NotImplementedError


def dims_of_levels(in_dims: int | Sequence[int], levels: Sequence[int]) -> list[int]:
    """Widths of some of a tower's maps; ``in_dims`` as in :meth:`RegionEncoder.out_dims`.

    Raises:
        ConfigError: a level does not exist.
    """
    if isinstance(in_dims, int):
        return [in_dims] * len(levels)
    missing = [level for level in levels if not -len(in_dims) <= level < len(in_dims)]
    if missing:
        raise ConfigError(f"level {missing[0]} is read, but the tower has {len(in_dims)} maps")
    return [in_dims[level] for level in levels]
