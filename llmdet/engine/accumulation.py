"""Batches of several micro-batches: read together, so that losses know what they are parts of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from llmdet.models.accumulation import StepTotals


class MicroBatches:
    """An iterator of batches that reads those of one step of the optimizer together.

    Args:
        batches: an iterator; perhaps with a method ``skip_iter``.
        size: gives how many of the next batches make a step, or what is left of one.
        count: gives the totals of a step from the data samples of its batches.
    """

    def __init__(
        self,
        batches: Any,
        size: Callable[[], int],
        count: Callable[[list[Any]], StepTotals],
    ) -> None:
        self._batches, self._size, self._count = batches, size, count
        self._ahead: deque[Any] = deque()
        #: Of the step that the last batch belongs to.
        self.totals: StepTotals | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._ahead:
            self._ahead.append(next(self._batches))
            for _ in range(self._size() - 1):
                try:
                    self._ahead.append(next(self._batches))
                except StopIteration:  # an epoch ends within a step
                    break
            self.totals = self._count([batch["data_samples"] for batch in self._ahead])
        return self._ahead.popleft()

    def skip_iter(self, number: int) -> None:
        """Leave out what was trained before."""
        self._batches.skip_iter(number)
