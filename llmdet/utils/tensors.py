"""Rows of batches, and transfers to the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def take_rows(tensors: Sequence[Tensor], rows: Sequence[int]) -> list[Tensor]:
    """Rows of tensors [B, ...] in the given order, repeats allowed: [len(rows), ...] each.

    All rows in their order, and one row several times, are views; other rows are copies.
    """
    if list(rows) == list(range(len(tensors[0]))):
        return list(tensors)
    if len(set(rows)) == 1:
        row = rows[0]
        return [x[row : row + 1].expand(len(rows), *x.shape[1:]) for x in tensors]
    index = torch.tensor(rows).to(tensors[0].device, non_blocking=True)
    return [x[index] for x in tensors]


def copy_to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the CPU, bit by bit; whatever their dtypes, the host waits for one copy."""
    if all(x.device.type == "cpu" for x in tensors):
        return list(tensors)
    return unpack(pack(tensors).cpu(), tensors)


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of tensors, one after the other: [n] uint8."""
    return torch.cat([x.flatten().view(torch.uint8) for x in tensors])


def unpack(packed: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Tensors with the shapes and dtypes of ``like`` from what :func:`pack` made."""
    parts = packed.split([x.numel() * x.element_size() for x in like])
    # A copy begins where its dtype may begin; a part does not have to.
    return [part.clone().view(x.dtype).view(x.shape) for part, x in zip(parts, like, strict=True)]
