"""Count what the data pipeline leaves out, so that nothing disappears without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import get_worker_info

_SLOTS = 64  # data loader workers with a row of their own; more of them share rows


class DropCounter:
    """How often each cause made something be left out, summed over all data loader workers.

    The numbers live in shared memory, one row for each worker, so that the main process can read
    what its workers count.

    Args:
        causes: what may be counted, in the words of the log.
    """

    def __init__(self, *causes: str) -> None:
        self.causes = causes
        self._counts = torch.zeros(_SLOTS, len(causes), dtype=torch.int64).share_memory_()

    def add(self, cause: str, number: int = 1) -> None:
        """Count `number` cases of a cause."""
        worker = get_worker_info()
        slot = 0 if worker is None else 1 + worker.id % (_SLOTS - 1)
        self._counts[slot, self.causes.index(cause)] += number

    def totals(self) -> dict[str, int]:
        """Number of cases since the start, of the causes that occurred."""
        numbers = self._counts.sum(0).tolist()
        return {cause: n for cause, n in zip(self.causes, numbers, strict=True) if n}


def dropped_totals(dataset: Any) -> dict[str, int]:
    """Sum the counters of a dataset, of the datasets it wraps, and of their transforms.

    Args:
        dataset: any dataset; those of `ConcatDataset` and wrappers with a `dataset` are followed.
    """
    totals: Counter[str] = Counter()
    for counter in _counters(dataset):
        totals.update(counter.totals())
    return dict(totals)


def _counters(dataset: Any) -> Iterator[DropCounter]:
    for inner in (*getattr(dataset, "datasets", ()), getattr(dataset, "dataset", None)):
        if inner is not None:
            yield from _counters(inner)
    transforms = getattr(getattr(dataset, "pipeline", None), "transforms", ())
    for owner in (dataset, *transforms):
        counter = getattr(owner, "dropped", None)
        if isinstance(counter, DropCounter):
            yield counter
