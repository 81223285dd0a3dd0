"""Multi-scale deformable attention: bilinear samples of value maps, summed by weight.

Deformable DETR (arXiv 2010.04159), section 4.1. There is one function for callers,
:func:`deformable_attention`; :mod:`.reference` is the PyTorch reference that runs everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmdet.ops.deformable_attention.reference import sample_with_grid_sample


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
    return sample_with_grid_sample(value, shapes, locations, weights).to(value.dtype)


def backend(device: torch.device | str) -> str:
    """Name of the implementation that :func:`deformable_attention` uses on ``device``."""
    return f"pytorch grid_sample ({torch.device(device).type})"
