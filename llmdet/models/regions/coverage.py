"""How much of each cell of a tower's map a region covers.

Views are scaled and moved along their axes, so that coverage is a product of overlaps along
x and y: exact for boxes, an average over the mask's own pixels for masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmdet.errors import DataError
from llmdet.models.vision.views import Frame
from llmdet.ops.precision import float32_island

Size = tuple[int, int]


@float32_island
def box_coverage(frame: Frame, boxes: Tensor, image: Tensor, shape: Size) -> Tensor:
    """Covered part of each cell, 0..1.

    Args:
        frame: where the images lie in the view.
        boxes: [R, 4] xyxy in pixels of the original images.
        image: [R] int64, which of the B images.
        shape: (height, width) of the map.

    Returns:
        [R, height, width] float32; what a region has beyond the visible image does not count.
    """
    cells = frame.visible_boxes(boxes, image) * _per_view(frame, shape, boxes)
    rows = _overlaps(cells[:, 1::2], shape[0])  # [R, height]
    columns = _overlaps(cells[:, 0::2], shape[1])  # [R, width]
    return rows[:, :, None] * columns[:, None]


@float32_island
def mask_coverage(frame: Frame, masks: Tensor, image: int, shape: Size) -> Tensor:
    """Covered part of each cell, 0..1.

    Args:
        frame: where the images lie in the view.
        masks: [N, h, w] bool, or 0..1 where soft, of one original image.
        image: its number.
        shape: (height, width) of the map.

    Returns:
        [N, height, width] float32.
    """
    device = frame.scale.device
    height, width = masks.shape[1:]
    rows = _axis_boxes(height, device, vertical=True)
    columns = _axis_boxes(width, device, vertical=False)
    # Each row and each column of pixels as a box, which reaches far enough along the other axis.
    lines = torch.cat([rows, columns])
    which = torch.full((len(lines),), image, dtype=torch.int64, device=device)
    cells = frame.visible_boxes(lines, which) * _per_view(frame, shape, lines)
    down = _overlaps(cells[:height, 1::2], shape[0])  # [h, height]
    across = _overlaps(cells[height:, 0::2], shape[1])  # [w, width]
    return down.T @ masks.to(down) @ across


def nearest_cells(frame: Frame, centres: Tensor, image: Tensor, shape: Size) -> Tensor:
    """The cells [R, height, width], 1 or 0, nearest to points [R, 2] of the original images."""
    cells = frame.visible_boxes(centres.repeat(1, 2), image) * _per_view(frame, shape, centres)
    height, width = shape
    x = cells[:, 0].floor().long().clamp(0, width - 1)
    y = cells[:, 1].floor().long().clamp(0, height - 1)
    flat = torch.zeros(len(centres), height * width, device=centres.device)
    return flat.scatter(1, (y * width + x)[:, None], 1.0).view(-1, height, width)


@float32_island
def sampled_masks(frame: Frame, masks: Tensor, image: int, shape: Size) -> Tensor:
    """Masks at the middles of the cells, bilinear and not smoothed: what is small may vanish.

    Arguments and result as of :func:`mask_coverage`.
    """
    device = frame.scale.device
    y, x = (
        (torch.arange(count, device=device) + 0.5) * (pixels / count)
        for count, pixels in zip(shape, frame.size, strict=True)
    )
    down = _interpolation((y - frame.offset[image, 1]) / frame.scale[image, 1], masks.shape[1])
    across = _interpolation((x - frame.offset[image, 0]) / frame.scale[image, 0], masks.shape[2])
    return down @ (masks.to(down) @ across.T)


def _interpolation(places: Tensor, count: int) -> Tensor:
    """Weights [n, count] of ``count`` pixels in bilinear values at places [n]; 0 outside."""
    inside = (places >= 0) & (places <= count)
    index = (places - 0.5).clamp(0, count - 1)
    first = index.floor()
    share = index - first
    second = (first + 1).clamp(max=count - 1)
    weights = places.new_zeros(len(places), count)
    weights.scatter_add_(1, first.long()[:, None], (1 - share)[:, None])
    weights.scatter_add_(1, second.long()[:, None], share[:, None])
    return weights * inside[:, None]


def filled_boxes(boxes: Tensor, size: Size) -> Tensor:
    """Boxes [N, 4] xyxy as masks [N, height, width] bool: pixels whose middles they contain."""
    y, x = (torch.arange(n, device=boxes.device) + 0.5 for n in size)
    rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:])
    columns = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])
    return rows[:, :, None] & columns[:, None]


def mask_centres(masks: Sequence[Tensor], device: torch.device) -> Tensor:
    """Middles [N, 2] (x, y) of the boxes around masks of [h, w].

    Raises:
        DataError: a mask is empty.
    """
    centres = []
    for number, mask in enumerate(masks):
        y, x = mask.nonzero(as_tuple=True)
        if not len(x):
            raise DataError(f"the mask of region {number} of the batch is empty")
        centres.append([(x.min() + x.max() + 1) / 2, (y.min() + y.max() + 1) / 2])
    return torch.tensor(centres, dtype=torch.float32, device=device).reshape(-1, 2)


def _per_view(frame: Frame, shape: Size, like: Tensor) -> Tensor:
    """[4] cells of the map for a pixel of the view, x, y, x, y."""
    x, y = shape[1] / frame.size[1], shape[0] / frame.size[0]
    return torch.tensor([x, y, x, y]).to(like.device, non_blocking=True)


def _overlaps(spans: Tensor, count: int) -> Tensor:
    """How much of each of ``count`` unit cells the spans [R, 2] cover: [R, count]."""
    first = torch.arange(count, device=spans.device)
    low = torch.maximum(spans[:, :1], first)
    high = torch.minimum(spans[:, 1:], first + 1)
    return (high - low).clamp(min=0)


def _axis_boxes(count: int, device: torch.device, *, vertical: bool) -> Tensor:
    """Boxes [count, 4] of the original image that are its rows, or its columns, of pixels."""
    start = torch.arange(count, device=device, dtype=torch.float32)
    flat = torch.zeros_like(start)
    parts = [flat, start, flat, start + 1] if vertical else [start, flat, start + 1, flat]
    return torch.stack(parts, 1)
