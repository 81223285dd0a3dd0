"""Box arithmetic that the transformer and the head share; always float32 or wider."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmdet.ops.precision import float32_island


@float32_island
def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Inverse of the sigmoid, with ``x`` and ``1 - x`` kept at or above ``eps``."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Turn [..., 4] centre and size into corners, in the same unit."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Turn [..., 4] corners into centre and size, in the same unit."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + second) / 2, second - first], -1)


def axes_scale(width: float, height: float, like: Tensor) -> Tensor:
    """[4] (width, height, width, height), to scale xyxy or cxcywh boxes ``like`` [..., 4] with.

    The host does not wait for the copy to the device, as it does in ``new_tensor``.
    """
    return axes_scales([(height, width)], like)[0]


def axes_scales(sizes: Sequence[tuple[float, float]], like: Tensor) -> Tensor:
    """[B, 4], :func:`axes_scale` of B images, ``sizes`` (height, width) of each, in one copy."""
    scales = [[width, height, width, height] for height, width in sizes]
    return torch.tensor(scales, dtype=like.dtype).to(like.device, non_blocking=True)
