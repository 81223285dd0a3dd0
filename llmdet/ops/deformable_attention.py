"""Multi-scale deformable attention: bilinear samples of value maps, summed by weight.

Deformable DETR (arXiv 2010.04159), section 4.1. There is one function for callers,
:func:`deformable_attention`; below it stands the PyTorch reference that runs everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from llmdet.ops.precision import float32_island


def deformable_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Sample ``value`` at ``locations`` and sum the samples by ``weights``.

    Args:
        value: [B, S, heads, C / heads] projected values of all levels, one after the other.
        shapes: (height, width) of each level; their products add up to S.
        locations: [B, Q, heads, levels, P, 2] (x, y) in 0..1 of the level's map, where 0 and 1
            are the outer edges of its first and last pixel. What lies outside reads zero.
        weights: [B, Q, heads, levels, P], summing to one over levels and points.

    Returns:
        [B, Q, C] of ``value``'s dtype. Locations, weights and sums are float32 (or float64)
        under any autocast.
    """
    return _sample_in_pytorch(value, shapes, locations, weights).to(value.dtype)


def backend(device: torch.device | str) -> str:
    """Name of the implementation that :func:`deformable_attention` uses on ``device``."""
    return f"pytorch grid_sample ({torch.device(device).type})"


@float32_island
def _sample_in_pytorch(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    batch, _, heads, head_dims = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    # grid_sample counts -1..1 from edge to edge.
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # [B*heads, Q, levels, P, 2]
    per_level = value.transpose(1, 2).flatten(0, 1).transpose(1, 2)  # [B*heads, C/heads, S]
    samples = []
    for level, (feat, (height, width)) in enumerate(
        zip(per_level.split([h * w for h, w in shapes], dim=2), shapes, strict=True)
    ):
        samples.append(
            F.grid_sample(
                feat.reshape(batch * heads, head_dims, height, width),
                grids[:, :, level],
                mode="bilinear",
                padding_mode="zeros",
                align_corners=False,
            )
        )  # [B*heads, C/heads, Q, P]
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, len(shapes) * points)
    summed = (torch.cat(samples, dim=-1) * weights).sum(-1)  # [B*heads, C/heads, Q]
    return summed.reshape(batch, heads * head_dims, queries).transpose(1, 2)
