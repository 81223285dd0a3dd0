"""What losses of a micro-batch must know of the others whose gradients it is added to.

A loss that is a sum over boxes or tokens divided by their number is not the mean of the same loss
over parts of the batch. So the parts of a step are read together, counted, and each part's sums are
divided by the mean number over all parts: the mean of the parts' losses is then that of the
whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from mmengine.dist import all_reduce
from torch import Tensor


@dataclass(frozen=True)
class StepTotals:
    """What the micro-batches of one step of the optimizer hold together on this process."""

    parts: int  # micro-batches
    noised: int  # boxes of all images that become denoising queries, in each group
    matched: int  # boxes that a query can be matched to: at most Q of an image
    fullest: int  # boxes of the image that has most
    learned: Mapping[str, int] = field(default_factory=dict)  # kind of mark -> supervised tokens


_CURRENT: ContextVar[StepTotals | None] = ContextVar("step_totals", default=None)


def step_totals() -> StepTotals | None:
    """Totals of the step that is going on, None where it has one batch."""
    return _CURRENT.get()


@contextmanager
def accumulating(totals: StepTotals | None) -> Iterator[None]:
    """A ``with`` block in which losses are parts of a step with these totals."""
    token = _CURRENT.set(totals)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def share_of_step(learned: int, kind: str, device: torch.device) -> Tensor:
    """Scalar: learned tokens beside their mean number over processes and micro-batches.

    A language model's loss is a mean over the tokens of a micro-batch. Times this, it is a part of
    the mean over the whole batch. Every process has to call it.

    Args:
        learned: supervised tokens of this micro-batch.
        kind: what the totals of a step count them under.
        device: where the loss is.
    """
    totals = step_totals()
    parts, of_step = 1, learned
    if totals is not None:
        parts, of_step = totals.parts, totals.learned[kind]
    mean = torch.tensor(float(of_step)).to(device, non_blocking=True)
    all_reduce(mean, op="mean")
    return learned * parts / mean.clamp(min=torch.finfo(mean.dtype).tiny)
