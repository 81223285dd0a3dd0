"""Deformable attention through gathers of table rows, for programs that are exported.

Exported graphs hold no ``grid_sample``: TensorRT builds engines from ONNX's GridSample that run and
give wrong numbers (NVIDIA/TensorRT issues 4646 and 4813). Every runtime gathers rows alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmdet.ops.precision import float32_island


@float32_island
def sample_with_gather(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Sample corner by corner; arguments as in :func:`llmdet.ops.deformable_attention`.

    The channels of one pixel and head are one row of a table. Beside its result it holds the rows
    of one corner, [B, Q, heads, levels, P, C / heads]. Heights and widths may be symbols.

    Returns:
        [B, Q, C] float32, or float64 where the values are.
    """
    batch, pixels, heads, head_dims = value.shape
    device = value.device
    heights, widths = (
        torch.stack([torch.scalar_tensor(side, dtype=torch.int64, device=device) for side in sides])
        for sides in zip(*shapes, strict=True)
    )  # [levels] each
    sizes = torch.stack([widths, heights], -1)[:, None].to(locations.dtype)  # [levels, 1, (w, h)]
    places = locations * sizes - 0.5  # pixels, as grid_sample counts them
    places = places.clamp(min=-2).minimum(sizes + 1)  # whole numbers of what is far fit 64 bits
    corner = places.floor()
    far = places - corner  # share of the right, of the lower neighbour
    left, top = corner.to(torch.int64).unbind(-1)  # [B, Q, heads, levels, P]

    starts = (heights * widths).cumsum(0) - heights * widths
    image = torch.arange(batch, device=device)[:, None, None, None, None]
    head = torch.arange(heads, device=device)[:, None, None]
    first = image * pixels + starts[:, None]  # [B, 1, 1, levels, 1], pixels before the map
    table = value.reshape(-1, head_dims)  # [B * S * heads, C / heads]
    out = value.new_zeros(())
    for right in (0, 1):
        for lower in (0, 1):
            x, y = left + right, top + lower
            inside = (x >= 0) & (x < widths[:, None]) & (y >= 0) & (y < heights[:, None])
            share = _share(far[..., 0], right) * _share(far[..., 1], lower) * weights * inside
            x = torch.minimum(x.clamp(min=0), widths[:, None] - 1)
            y = torch.minimum(y.clamp(min=0), heights[:, None] - 1)
            rows = (first + y * widths[:, None] + x) * heads + head
            samples = table.index_select(0, rows.flatten()).unflatten(0, rows.shape)
            out = out + (samples * share[..., None]).sum((3, 4))  # [B, Q, heads, C / heads]
    return out.flatten(2)


def _share(far: Tensor, is_far: int) -> Tensor:
    return far if is_far else 1 - far
