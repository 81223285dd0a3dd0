"""Deformable attention through ``grid_sample``: what every other implementation must equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from llmdet.ops.precision import float32_island


@float32_island
def sample_with_grid_sample(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Sample level by level; arguments as in :func:`llmdet.ops.deformable_attention`.

    Beside its result it holds the samples of one level, [B * heads, C / heads, P, Q], not of all
    of them; autograd keeps each level's samples once.

    Returns:
        [B, Q, C] float32, or float64 where the values are.
    """
    batch, _, heads, head_dims = value.shape
    queries = locations.shape[1]
    maps = value.permute(0, 2, 3, 1).flatten(0, 1)  # [B*heads, C/heads, S]
    out = value.new_zeros(batch * heads, head_dims, queries)
    start = 0
    for level, (height, width) in enumerate(shapes):
        # Queries come last, so that the samples of one point are contiguous in them.
        places = locations[:, :, :, level].permute(0, 2, 3, 1, 4).flatten(0, 1)
        shares = weights[:, :, :, level].permute(0, 2, 3, 1).flatten(0, 1)  # [B*heads, P, Q]
        samples = F.grid_sample(
            maps[:, :, start : start + height * width].unflatten(2, (height, width)),
            2 * places - 1,  # grid_sample counts -1..1 from edge to edge.
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # [B*heads, C/heads, P, Q]
        # In place and multiplied while adding: no product of the samples' size is made.
        for sample, share in zip(samples.unbind(2), shares.unbind(1), strict=True):
            out = out.addcmul_(sample, share[:, None])
        del samples, sample  # before those of the next level are made
        start += height * width
    return out.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2)
