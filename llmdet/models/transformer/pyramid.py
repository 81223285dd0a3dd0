"""From backbone maps of several strides to one flattened sequence of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from llmdet.models.structures import FeaturePyramid
from llmdet.models.transformer.positions import SinePositionalEncoding

Size = tuple[int, int]


def valid_level_sizes(
    image_sizes: Sequence[Size], padded_size: Size, level_shapes: Sequence[Size]
) -> list[list[Size]]:
    """How much of each level is not padding, for images padded before the backbone.

    A map's pixel is valid if the image pixel that nearest-neighbour scaling takes it from is.

    Args:
        image_sizes: (height, width) of each of the B images before padding, in pixels.
        padded_size: (height, width) that all were padded to.
        level_shapes: (height, width) of the maps of each level.

    Returns:
        One list of B (height, width) per level.
    """
    return [
        [
            (-(-h * shape[0] // padded_size[0]), -(-w * shape[1] // padded_size[1]))
            for h, w in image_sizes
        ]
        for shape in level_shapes
    ]


def build_pyramid(
    feats: Sequence[Tensor],
    valid_sizes: Sequence[Sequence[Size]],
    level_embed: Tensor,
    encoding: SinePositionalEncoding,
) -> FeaturePyramid:
    """Flatten feature maps and add what attention needs to know of their layout.

    Args:
        feats: one [B, C, H, W] per level, fine to coarse.
        valid_sizes: per level, the (height, width) of each image's part that is not padding.
        level_embed: [levels, C], added to the position encoding.
        encoding: position encoding of one map.
    """
    device = feats[0].device
    shapes = tuple((feat.shape[-2], feat.shape[-1]) for feat in feats)
    sizes = torch.tensor(valid_sizes).to(device, non_blocking=True)  # [levels, B, 2]
    spatial_shapes = torch.tensor(shapes).to(device, non_blocking=True)
    starts = [0, *accumulate(h * w for h, w in shapes[:-1])]
    unpadded = all(
        tuple(size) == shape
        for level, shape in zip(valid_sizes, shapes, strict=True)
        for size in level
    )
    positions = [encoding(s, shape) for s, shape in zip(sizes, shapes, strict=True)]
    dtype = level_embed.dtype
    return FeaturePyramid(
        feat=torch.cat([feat.flatten(2).transpose(1, 2) for feat in feats], dim=1),
        pos=torch.cat([p.to(dtype) + e for p, e in zip(positions, level_embed, strict=True)], 1),
        padding_mask=None if unpadded else _padding_mask(sizes, shapes),
        shapes=shapes,
        spatial_shapes=spatial_shapes,
        level_start_index=torch.tensor(starts).to(device, non_blocking=True),
        valid_ratios=(sizes / spatial_shapes[:, None]).flip(-1).transpose(0, 1),
    )


def _padding_mask(sizes: Tensor, shapes: Sequence[Size]) -> Tensor:
    masks = []
    for (height, width), valid in zip(shapes, sizes, strict=True):
        rows = torch.arange(height, device=sizes.device)[:, None] >= valid[:, 0, None, None]
        columns = torch.arange(width, device=sizes.device) >= valid[:, 1, None, None]
        masks.append((rows | columns).flatten(1))
    return torch.cat(masks, dim=1)  # [B, S]


def pixel_centres(pyramid: FeaturePyramid) -> Tensor:
    """Centres of all pixels in 0..1 of each image's valid part.

    Returns:
        [B, S, 2] float32 (x, y); beyond 1 where there is padding.
    """
    centres = []
    for level, (height, width) in enumerate(pyramid.shapes):
        device = pyramid.feat.device
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).flatten(0, 1)
        centres.append(grid / pyramid.valid_ratios[:, level, None])
    return torch.cat(centres, dim=1)
