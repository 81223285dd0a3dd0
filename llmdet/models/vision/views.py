"""Views, frames and what towers make of them.

Regions stay in pixels of the original image until a frame is asked where they lie in a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor

from llmdet.datasets.views import ImageView, ViewSettings

Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """Where each of B images lies in a view: pixel of the view = original pixel * scale + offset.

    Coordinates are (x, y) of pixel corners: an image of width w reaches from x = 0 to x = w.
    """

    scale: Tensor  # [B, 2] float32 (x, y); x is negative where an image is mirrored
    offset: Tensor  # [B, 2] float32 pixels of the view (x, y)
    valid_sizes: tuple[Size, ...]  # B (height, width) of the image in the view, without padding
    original_sizes: tuple[Size, ...]  # B (height, width)
    size: Size  # (height, width) of the view
    corner: Tensor | None = None  # [B, 2] float32 (x, y), where the valid part begins; None: offset

    def points(self, points: Tensor, image: Tensor) -> Tensor:
        """Points [N, 2] of the original image in the view; ``image`` [N] int64 says of which."""
        return points * self.scale[image] + self.offset[image]

    def original_points(self, points: Tensor, image: Tensor) -> Tensor:
        """The inverse of :meth:`points`."""
        return (points - self.offset[image]) / self.scale[image]

    def boxes(self, boxes: Tensor, image: Tensor) -> Tensor:
        """Boxes [N, 4] xyxy of the original image in the view; ``image`` [N] as in ``points``."""
        corners = self.points(boxes.unflatten(1, (2, 2)), image[:, None].expand(-1, 2))
        return _ordered(corners)

    def original_boxes(self, boxes: Tensor, image: Tensor) -> Tensor:
        """The inverse of :meth:`boxes`."""
        corners = self.original_points(boxes.unflatten(1, (2, 2)), image[:, None].expand(-1, 2))
        return _ordered(corners)

    def relative_boxes(self, boxes: Tensor, image: Tensor) -> Tensor:
        """Boxes [N, 4] xyxy of the original image in 0..1 of the valid part of the view."""
        return self.relative_to_valid(self.boxes(boxes, image), image)

    def relative_to_valid(self, boxes: Tensor, image: Tensor) -> Tensor:
        """Boxes [N, 4] xyxy of the view in 0..1 of its valid part."""
        seen = boxes - self._corner().repeat(1, 2)[image]
        return (seen / self._extents(boxes).repeat(1, 2)[image]).clamp(0, 1)

    def valid_boxes(self) -> Tensor:
        """The valid part of each view, [B, 4] xyxy float32 in its pixels."""
        corner = self._corner()
        return torch.cat([corner, corner + self._extents(corner)], 1)

    def visible_boxes(self, boxes: Tensor, image: Tensor) -> Tensor:
        """As :meth:`boxes`, cut at the valid part of the view."""
        valid = self.valid_boxes()[image]
        low, high = valid[:, :2].repeat(1, 2), valid[:, 2:].repeat(1, 2)
        return torch.minimum(torch.maximum(self.boxes(boxes, image), low), high)

    def masks(self, masks: Tensor, image: int) -> Tensor:
        """Masks [N, h, w] bool of one original image in the view, [N, height, width] bool."""
        places = self.original_points(_pixel_centres(self.size, self.scale), self._rows(image))
        return _sample_masks(masks, places, self.size)

    def original_masks(self, masks: Tensor, image: int) -> Tensor:
        """Masks [N, height, width] bool of the view in one original image, [N, h, w] bool."""
        size = self.original_sizes[image]
        places = self.points(_pixel_centres(size, self.scale), self._rows(image))
        return _sample_masks(masks, places, size)

    def _corner(self) -> Tensor:
        return self.offset if self.corner is None else self.corner

    def _extents(self, like: Tensor) -> Tensor:
        """[B, 2] width and height of the valid parts."""
        valid = torch.tensor([(w, h) for h, w in self.valid_sizes], dtype=like.dtype)
        return valid.to(like.device, non_blocking=True)

    def _rows(self, image: int) -> Tensor:
        return torch.tensor([image], device=self.scale.device)


@dataclass(frozen=True)
class View:
    """What a tower sees of B images."""

    pixels: Tensor  # [B, 3, H, W] normalised
    frame: Frame


@dataclass(frozen=True)
class TowerOutput:
    """What a tower makes of a view."""

    tokens: Tensor  # [B, N, C]
    maps: tuple[Tensor, ...]  # [B, C, h, w] per level, fine to coarse
    valid_ratios: Tensor  # [B, levels, 2] float32, valid (width, height) / that of each map
    frame: Frame


class Tower(Protocol):
    """Reads a view; registered in ``MODELS``. Some towers read a text with it.

    Towers whose maps differ in width have ``map_dims`` besides, the width of each.
    """

    dims: int  # width C of what it makes, of its last map where they differ
    view: ViewSettings  # what it wants to see

    def __call__(self, view: View, /) -> TowerOutput:
        """Tokens and maps of the view."""


def collate_views(views: Sequence[ImageView], device: torch.device | str = "cpu") -> View:
    """What one tower sees of B images, normalised; smaller views are padded right and below.

    Args:
        views: of each image, all made with the same settings.
        device: where the batch shall be; the host does not wait for the copy.
    """
    placements = [view.placement for view in views]
    height = max(view.pixels.shape[1] for view in views)
    width = max(view.pixels.shape[2] for view in views)
    settings = views[0].settings

    def moved(values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)

    mean, std = moved(settings.mean)[:, None, None], moved(settings.std)[:, None, None]
    pixels = torch.zeros(len(views), 3, height, width, device=device)
    for place, view in zip(pixels, views, strict=True):
        colours = torch.from_numpy(view.pixels).to(device, non_blocking=True)
        rows, columns = _filled_part(view)
        place[:, rows, columns] = (colours[:, rows, columns].float() - mean) / std
    frame = Frame(
        scale=moved([placement.scale for placement in placements]),
        offset=moved([placement.offset for placement in placements]),
        valid_sizes=tuple(placement.valid for placement in placements),
        original_sizes=tuple(placement.original for placement in placements),
        size=(height, width),
        corner=moved([placement.corner for placement in placements]),
    )
    return View(pixels, frame)


def _filled_part(view: ImageView) -> tuple[slice, slice]:
    """Rows and columns of a view that are not left at 0."""
    if view.settings.padding == "colour":
        return slice(view.pixels.shape[1]), slice(view.pixels.shape[2])
    (x, y), (height, width) = view.placement.corner, view.placement.valid
    return slice(y, y + height), slice(x, x + width)


def frame_of(samples: Sequence[DetDataSample], pixels: Tensor) -> Frame:
    """The frame of a batch that mmdet's pipelines resized, and padded right and below.

    Args:
        samples: B samples with ``img_shape``, and ``ori_shape`` where the image was resized.
        pixels: [B, 3, H, W].
    """
    valid = tuple((int(s.img_shape[0]), int(s.img_shape[1])) for s in samples)
    shapes = [sample.get("ori_shape") or sample.img_shape for sample in samples]
    original = tuple((int(shape[0]), int(shape[1])) for shape in shapes)
    # Not scale_factor, which a rounded size does not keep to.
    scale = torch.tensor(
        [(w / ow, h / oh) for (h, w), (oh, ow) in zip(valid, original, strict=True)]
    ).to(pixels.device, non_blocking=True)
    size = pixels.shape[-2], pixels.shape[-1]
    return Frame(scale, torch.zeros_like(scale), valid, original, size)


def _ordered(corners: Tensor) -> Tensor:
    """Boxes [N, 4] from two opposite corners [N, 2, 2]; mirrored ones have the right one first."""
    first, second = corners.unbind(1)
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], 1)


def _pixel_centres(size: Size, like: Tensor) -> Tensor:
    """Centres [height * width, 2] (x, y) of all pixels, row by row."""
    y = torch.arange(size[0], device=like.device) + 0.5
    x = torch.arange(size[1], device=like.device) + 0.5
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)


def _sample_masks(masks: Tensor, places: Tensor, size: Size) -> Tensor:
    """Nearest values of masks [N, h, w] at places [height * width, 2] in pixels; False outside."""
    extent = places.new_tensor([masks.shape[2], masks.shape[1]])
    grid = (places / extent * 2 - 1).view(1, *size, 2).expand(len(masks), -1, -1, -1)
    sampled = F.grid_sample(masks[:, None].float(), grid, mode="nearest", align_corners=False)
    return sampled[:, 0] > 0.5
