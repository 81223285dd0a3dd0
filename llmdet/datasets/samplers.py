"""Orders of a data set of any size, and batches of images of similar shape."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence, Sized
from itertools import accumulate, islice
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
    """Mixes the parts of a `ConcatDataset` in given shares, whatever their sizes, without an end.

    After any number of images each part has given its share of them, to within one image; each is
    shuffled anew when it has been gone through. Every rank mixes alike, and no two ranks give the
    same image before its part begins again.

    Args:
        dataset: its parts are what is mixed.
        shares: of each part, e.g. ``[0.75, 0.25]``; numbers above 0, of which the sum counts as 1.
        seed: of the orders; default: one that all ranks draw together.
        images: after so many images, of all ranks together, an epoch ends, and the next one has
            other orders: for loops that count epochs.

    Raises:
        ConfigError: there is not one share above 0 for each part, or an epoch has no image.
    """

    epoch = 0

    def __init__(
        self,
        dataset: Any,
        shares: Sequence[float],
        seed: int | None = None,
        images: int | None = None,
    ) -> None:
        parts = getattr(dataset, "datasets", None)
        if parts is None or len(parts) != len(shares):
            count = 1 if parts is None else len(parts)
            raise ConfigError(
                f"ShareSampler: {len(shares)} shares for {count} data set(s): give one for each "
                "part of a ConcatDataset"
            )
        if not all(0 < share < math.inf for share in shares):
            raise ConfigError(f"ShareSampler: shares={list(shares)}; give numbers above 0")
        if images is not None and images < 1:
            raise ConfigError(f"ShareSampler: images={images}; an epoch has at least one")
        self.dataset = dataset
        self.shares = [share / sum(shares) for share in shares]
        self.seed = sync_random_seed() if seed is None else seed
        self.images = images
        self.rank, self.world_size = get_dist_info()

    def __len__(self) -> int:
        """Images of an epoch of this rank; without one, of all parts, though they do not end."""
        if self.images is None:
            return len(self.dataset)
        return -(-self.images // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; without `images` there is but one."""
        self.epoch = 0 if self.images is None else epoch

    def __iter__(self) -> Iterator[int]:
        """Indices of this rank."""
        return islice(self._mixed(), None if self.images is None else len(self))

    def _mixed(self) -> Iterator[int]:
        parts = self.parts()
        return (next(parts[number]) for number in in_shares(self.shares))

    def parts(self) -> list[Iterator[int]]:
        """Of each part the indices that this rank gives, without an end."""
        sizes = [len(part) for part in self.dataset.datasets]
        starts = [0, *accumulate(sizes)]
        return [self._order(number, starts[number], size) for number, size in enumerate(sizes)]

    def _order(self, part: int, start: int, size: int) -> Iterator[int]:
        """This rank's indices of a part that begins at `start`, one shuffled row after another."""
        generator = torch.Generator()
        generator.manual_seed(self.seed + part + self.epoch * len(self.shares))
        place = self.rank
        while True:
            order = torch.randperm(size, generator=generator)
            yield from _integers(start + order[place :: self.world_size])
            place = (place - size) % self.world_size


def in_shares(shares: Sequence[float]) -> Iterator[int]:
    """Numbers of parts, each as often as its share says: always the one that is furthest behind.

    Args:
        shares: above 0; their sum is 1.
    """
    given = [0] * len(shares)
    while True:
        wanted = [share * (sum(given) + 1) for share in shares]
        part = max(range(len(shares)), key=lambda number: wanted[number] - given[number])
        given[part] += 1
        yield part


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


@DATA_SAMPLERS.register_module()
class TaskBatchSampler(BatchSampler):
    """Batches of one task each, as often as the shares of a :class:`ShareSampler` say.

    Shares hold for tasks to within the batches that come in a row. Every rank gives a batch of the
    same task in the same step, and which one follows from the number of the step alone.

    Args:
        sampler: a `ShareSampler`: its shares count, and its orders within the parts.
        batch_size: images in a batch.
        tasks: the name of each part's task; parts of one name share batches.
        drop_last: leave out the last batch of an epoch if it is not full.
        in_a_row: so many batches of a task come one after another: those that are one step where
            gradients are accumulated.

    Raises:
        ConfigError: the sampler is another one, there is not one task for each part, or less than
            one batch comes in a row.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        tasks: Sequence[str],
        drop_last: bool = False,
        in_a_row: int = 1,
    ) -> None:
        if not isinstance(sampler, ShareSampler):
            raise ConfigError(
                "TaskBatchSampler takes its batches in the shares of a ShareSampler, not of a "
                f"{type(sampler).__name__}: set sampler=dict(type='ShareSampler', shares=[...])"
            )
        if len(tasks) != len(sampler.shares):
            raise ConfigError(
                f"TaskBatchSampler: {len(tasks)} tasks for {len(sampler.shares)} data set(s): give "
                "one for each part of the ConcatDataset"
            )
        if in_a_row < 1:
            raise ConfigError(f"TaskBatchSampler: in_a_row={in_a_row}; give at least 1")
        super().__init__(sampler, batch_size, drop_last)
        self.in_a_row = in_a_row
        self._shares = sampler.shares
        self._parts_of_task = [
            [number for number, task in enumerate(tasks) if task == name]
            for name in dict.fromkeys(tasks)
        ]

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of this rank."""
        assert isinstance(self.sampler, ShareSampler)
        indices = self.sampler.parts()
        shares = [[self._shares[part] for part in parts] for parts in self._parts_of_task]
        of_tasks = [sum(of_parts) for of_parts in shares]
        within = [
            in_shares([share / whole for share in of_parts])
            for whole, of_parts in zip(of_tasks, shares, strict=True)
        ]
        tasks = (task for task in in_shares(of_tasks) for _ in range(self.in_a_row))
        for number, task in enumerate(tasks):
            size = self.batch_size
            if self.sampler.images is not None:
                size = min(size, len(self.sampler) - number * size)
            if size < (self.batch_size if self.drop_last else 1):
                return
            parts = [self._parts_of_task[task][next(within[task])] for _ in range(size)]
            yield [next(indices[part]) for part in parts]

    def __len__(self) -> int:
        """Batches of an epoch."""
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
