"""Orders of a data set of any size, and batches of images of similar shape."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence, Sized
from itertools import accumulate
from typing import Any

import torch
from mmengine.dataset import DefaultSampler as MMEngineDefaultSampler
from mmengine.dataset import InfiniteSampler as MMEngineInfiniteSampler
from mmengine.dist import get_dist_info, sync_random_seed
from torch import Tensor
from torch.utils.data import BatchSampler, ConcatDataset, Sampler

from llmdet.errors import ConfigError
from llmdet.registry import DATA_SAMPLERS

_AT_ONCE = 1 << 14  # indices that are Python's integers at a time


@DATA_SAMPLERS.register_module()
class InfiniteSampler(MMEngineInfiniteSampler):
    """mmengine's, in the same order, without a list of all indices: 8 instead of 44 bytes each."""

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self.seed)
        while True:
            if self.shuffle:
                yield from _integers(torch.randperm(self.size, generator=generator))
            else:
                yield from range(self.size)


@DATA_SAMPLERS.register_module()
class DefaultSampler(MMEngineDefaultSampler):
    """mmengine's, in the same order, without a list of all indices."""

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank; where ranks do not share evenly, the first ones come again."""
        size = len(self.dataset)
        places = range(self.rank, self.total_size, self.world_size)
        if not self.shuffle:
            yield from (place % size for place in places)
            return
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        order = torch.randperm(size, generator=generator)
        for start in range(0, len(places), _AT_ONCE):
            part = places[start : start + _AT_ONCE]
            yield from order[torch.arange(part.start, part.stop, part.step) % size].tolist()


@DATA_SAMPLERS.register_module()
class ShareSampler(Sampler):
    """Endlessly mixes the parts of a `ConcatDataset` in given shares, whatever their sizes.

    After any number of images each part has given its share of them, to within one image; each is
    shuffled anew when it has been gone through. Every rank mixes alike, and no two ranks give the
    same image before its part begins again.

    Args:
        dataset: its parts are what is mixed.
        shares: of each part, e.g. ``[0.75, 0.25]``; numbers above 0, of which the sum counts as 1.
        seed: of the orders; default: one that all ranks draw together.

    Raises:
        ConfigError: there is not one share above 0 for each part.
    """

    def __init__(self, dataset: Any, shares: Sequence[float], seed: int | None = None) -> None:
        parts = getattr(dataset, "datasets", None)
        if parts is None or len(parts) != len(shares):
            count = 1 if parts is None else len(parts)
            raise ConfigError(
                f"ShareSampler: {len(shares)} shares for {count} data set(s): give one for each "
                "part of a ConcatDataset"
            )
        if not all(0 < share < math.inf for share in shares):
            raise ConfigError(f"ShareSampler: shares={list(shares)}; give numbers above 0")
        self.dataset = dataset
        self.shares = [share / sum(shares) for share in shares]
        self.seed = sync_random_seed() if seed is None else seed
        self.rank, self.world_size = get_dist_info()

    def __len__(self) -> int:
        """As many as the images of all parts, though they do not end there."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank."""
        sizes = [len(part) for part in self.dataset.datasets]
        starts = [0, *accumulate(sizes)]
        orders = [self._order(number, size) for number, size in enumerate(sizes)]
        given = [0] * len(sizes)
        while True:
            wanted = [share * (sum(given) + 1) for share in self.shares]
            # The part that is furthest behind its share.
            part = max(range(len(sizes)), key=lambda n: wanted[n] - given[n])
            given[part] += 1
            yield starts[part] + next(orders[part])

    def _order(self, part: int, size: int) -> Iterator[int]:
        """Indices within a part: this rank's of one shuffled row after another."""
        generator = torch.Generator()
        generator.manual_seed(self.seed + part)
        place = self.rank
        while True:
            order = torch.randperm(size, generator=generator)
            yield from _integers(order[place :: self.world_size])
            place = (place - size) % self.world_size


def _integers(order: Tensor) -> Iterator[int]:
    for start in range(0, len(order), _AT_ONCE):
        yield from order[start : start + _AT_ONCE].tolist()


@DATA_SAMPLERS.register_module()
class AspectRatioBatchSampler(BatchSampler):
    """Group upright images with upright ones and wide images with wide ones.

    The order follows the sampler's, which draws it from its seed and epoch. What remains of both
    groups at the end is put together, so that every rank gives the same number of batches. Shapes
    are read from the data set's `aspect_ratios`, through concatenation, without parsing a row.

    Args:
        sampler: gives the indices of this rank; has the attribute `dataset`.
        batch_size: images in a batch.
        drop_last: leave out the last batch if it is not full.
    """

    def __init__(self, sampler: Sampler, batch_size: int, drop_last: bool = False) -> None:
        self._dataset: Any = getattr(sampler, "dataset", None)
        if self._dataset is None:
            raise ConfigError(
                f"AspectRatioBatchSampler needs a sampler with a dataset, which "
                f"{type(sampler).__name__} has not; use DefaultSampler or InfiniteSampler."
            )
        super().__init__(sampler, batch_size, drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        upright: list[int] = []
        wide: list[int] = []
        for index in self.sampler:
            group = upright if is_upright(self._dataset, index) else wide
            group.append(index)
            if len(group) == self.batch_size:
                yield group[:]
                group.clear()
        rest = upright + wide
        for start in range(0, len(rest), self.batch_size):
            batch = rest[start : start + self.batch_size]
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        assert isinstance(self.sampler, Sized)
        if self.drop_last:
            return len(self.sampler) // self.batch_size
        return -(-len(self.sampler) // self.batch_size)


def is_upright(dataset: Any, index: int) -> bool:
    """Whether an image is higher than wide; reads the row only where no ratio is known."""
    while isinstance(dataset, ConcatDataset):
        number = bisect_right(dataset.cumulative_sizes, index)
        index -= dataset.cumulative_sizes[number - 1] if number else 0
        dataset = dataset.datasets[number]
    ratios = getattr(dataset, "aspect_ratios", None)
    if ratios is not None:
        return bool(ratios[index] < 1)
    info = dataset.get_data_info(index)
    return info["width"] < info["height"]
