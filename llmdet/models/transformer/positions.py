"""Sine encodings of pixels, boxes and text positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from llmdet.ops.precision import float32_island

#: Temperature of the encodings of boxes and text positions; images use a configured one.
COORDINATE_TEMPERATURE = 10000


def _sine(angles: Tensor, num_feats: int, temperature: float) -> Tensor:
    """Encode numbers [...] as [..., num_feats]: sine at even places, cosine at odd ones."""
    pair = torch.arange(num_feats, device=angles.device).div(2, rounding_mode="floor")
    frequencies = angles[..., None] / temperature ** (2 * pair.to(angles.dtype) / num_feats)
    return torch.stack([frequencies[..., 0::2].sin(), frequencies[..., 1::2].cos()], -1).flatten(-2)


@float32_island
def encode_coordinates(
    coordinates: Tensor, num_feats: int = 128, temperature: float = COORDINATE_TEMPERATURE
) -> Tensor:
    """Sine encoding of points or boxes.

    Args:
        coordinates: [..., 2] (x, y) or [..., 4] cxcywh, in 0..1.
        num_feats: features per number.
        temperature: base of the frequencies.

    Returns:
        [..., 2 or 4 times num_feats], in the order y, x, w, h.
    """
    order = [1, 0, *range(2, coordinates.shape[-1])]
    angles = coordinates[..., order] * (2 * math.pi)
    return _sine(angles, num_feats, temperature).flatten(-2)


@float32_island
def encode_text_positions(position_ids: Tensor, num_feats: int) -> Tensor:
    """Sine encoding [B, L, num_feats] of integer text positions [B, L]."""
    angles = position_ids.to(torch.float32) * (2 * math.pi)
    return _sine(angles, num_feats, COORDINATE_TEMPERATURE)


class SinePositionalEncoding(nn.Module):
    """Sine encoding of the pixels of one map, counted within the valid part of each image.

    Args:
        num_feats: features per axis, half the width of the transformer.
        temperature: base of the frequencies.
        normalize: scale positions to 0..2 pi over the valid part.
        offset: added to positions before scaling; -0.5 counts pixel centres.
        eps: keeps the scaling of empty parts finite.
    """

    def __init__(
        self,
        num_feats: int,
        temperature: float = 10000,
        normalize: bool = False,
        offset: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.num_feats, self.temperature = num_feats, temperature
        self.normalize, self.offset, self.eps = normalize, offset, eps

    def forward(self, valid_sizes: Tensor, shape: tuple[int, int]) -> Tensor:
        """Encode one level.

        Args:
            valid_sizes: [B, 2] int64 (height, width) of the part that is not padding.
            shape: (height, width) of the padded map.

        Returns:
            [B, H * W, 2 * num_feats] float32, the row's features first.
        """
        rows, columns = (torch.arange(n, device=valid_sizes.device) for n in shape)
        heights, widths = valid_sizes[:, 0, None, None], valid_sizes[:, 1, None, None]
        # The count of valid pixels up to here along each axis: zero where the line is padding.
        y = torch.minimum(rows[:, None] + 1, heights) * (columns < widths)  # [B, H, W]
        x = torch.minimum(columns + 1, widths) * (rows[:, None] < heights)
        positions = torch.stack([y, x], -1).float()
        if self.normalize:
            last = torch.stack([y[:, -1:].expand_as(y), x[:, :, -1:].expand_as(x)], -1)
            positions = (positions + self.offset) / (last + self.eps) * (2 * math.pi)
        return _sine(positions, self.num_feats, self.temperature).flatten(-2).flatten(1, 2)
