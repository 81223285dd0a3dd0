"""Backbones of mmdet that need a change to run on current torch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.backbones import SwinTransformer as MMDetSwin
from mmdet.models.backbones.swin import ShiftWindowMSA, SwinBlock, WindowMSA
from mmdet.models.layers.transformer.utils import AdaptivePadding, PatchMerging
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llmdet.registry import MODELS


@MODELS.register_module()
class SwinTransformer(MMDetSwin):
    """mmdet's Swin with fused attention, and ``with_cp`` in the way that torch now asks for.

    Reentrant checkpoints, which mmdet's blocks use, are deprecated, and lose the gradients of a
    block whose input needs none. Its parts ask no question that depends on an image's size, so
    that one exported program serves all sizes.

    Args:
        with_cp: recompute the activations of every block in the backward pass.
        settings: those of :class:`mmdet.models.SwinTransformer`.
    """

    def __init__(self, *, with_cp: bool = False, **settings: Any) -> None:
        super().__init__(with_cp=False, **settings)
        for module in self.modules():
            if type(module) in _REPLACED:
                module.__class__ = _REPLACED[type(module)]
            elif with_cp and isinstance(module, SwinBlock):
                module.forward = _Recomputed(module.forward)


class WindowAttention(WindowMSA):
    """mmdet's attention within windows, without a matrix of products for each of them."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Let the tokens of each window look at each other.

        Args:
            x: [B * windows, N, C], N tokens a window.
            mask: [windows, N, N], added to the products of shifted windows, or None.

        Returns:
            [B * windows, N, C].
        """
        windows, tokens, channels = x.shape  # not len(), which fixes the size of exported programs
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.unflatten(0, (tokens, tokens)).permute(2, 0, 1)  # [heads, N, N]
        if mask is not None:
            # Heads of all windows side by side, so that images share what is added.
            images, heads = windows // mask.shape[0], mask.shape[0] * self.num_heads
            qkv = qkv.reshape(3, images, heads, tokens, -1)  # windows * heads
            bias = (bias + mask[:, None]).flatten(0, 1)  # [windows * heads, N, N]
        query, key, value = qkv.unbind()
        dropout = self.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(
            query, key, value, bias.to(query.dtype), dropout, scale=self.scale
        )
        out = out.reshape(windows, self.num_heads, tokens, -1).transpose(1, 2)
        out = out.reshape(windows, tokens, channels)
        return self.proj_drop(self.proj(out))


class ShiftedWindows(ShiftWindowMSA):
    """mmdet's division of a map into windows, shifted in every second block."""

    def forward(self, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Let the pixels of each window look at each other.

        Args:
            query: [B, H * W, C].
            hw_shape: (H, W).

        Returns:
            [B, H * W, C].
        """
        (height, width), side, shift = hw_shape, self.window_size, self.shift_size
        batch, _, channels = query.shape
        rows, columns = _parts(height, side), _parts(width, side)  # of windows
        x = query.view(batch, height, width, channels)
        x = F.pad(x, (0, 0, 0, columns * side - width, 0, rows * side - height))
        mask = None
        if shift:
            x = torch.roll(x, shifts=(-shift, -shift), dims=(1, 2))
            mask = _separate_regions(rows, columns, side, shift, query.device)
        x = self.w_msa(_windows(x, rows, columns, side), mask=mask)
        x = x.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        x = x.reshape(batch, rows * side, columns * side, channels)
        if shift:
            x = torch.roll(x, shifts=(shift, shift), dims=(1, 2))
        return self.drop(x[:, :height, :width].reshape(batch, height * width, channels))


def _parts(length: int, size: int) -> int:
    """How many parts of ``size`` cover ``length``; also for symbols, which know it a multiple."""
    return (length + size - 1) // size


def _windows(x: Tensor, rows: int, columns: int, side: int) -> Tensor:
    """Cut maps [B, rows * side, columns * side, C] into [B * rows * columns, side * side, C]."""
    batch, channels = x.shape[0], x.shape[-1]
    x = x.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
    return x.reshape(batch * rows * columns, side * side, channels)


def _separate_regions(
    rows: int, columns: int, side: int, shift: int, device: torch.device
) -> Tensor:
    """[rows * columns, N, N], -100 where pixels of a shifted window were not neighbours before.

    Along each axis the last window holds the map's end and its beginning, which is the last
    ``shift`` lines.
    """
    bands = []
    for windows in (rows, columns):
        line = torch.arange(windows * side, device=device)
        bands.append((line >= (windows - 1) * side).float() + (line >= windows * side - shift))
    regions = 3 * bands[0][:, None] + bands[1]  # [H, W]
    flat = _windows(regions[None, ..., None], rows, columns, side)[..., 0]  # [windows, N]
    apart = flat[:, None] != flat[:, :, None]
    return torch.zeros(apart.shape, device=device).masked_fill(apart, -100.0)


class CornerPadding(AdaptivePadding):
    """mmdet's padding right and below to a multiple of the stride, for kernels of its size."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad maps [B, C, H, W]."""
        missing = [
            _parts(length, stride) * stride - length
            for length, stride in zip(x.shape[-2:], self.stride, strict=True)
        ]
        return F.pad(x, (0, missing[1], 0, missing[0]))


class Merging(PatchMerging):
    """mmdet's merging of 2 x 2 pixels into one."""

    def forward(self, x: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Halve a map [B, H * W, C] of size (H, W); its channels become twice as many."""
        (height, width), (batch, _, channels) = input_size, x.shape
        maps = x.view(batch, height, width, channels).permute(0, 3, 1, 2)
        rows, columns = _parts(height, 2), _parts(width, 2)
        maps = self.adap_padding(maps).reshape(batch, channels, rows, 2, columns, 2)
        maps = maps.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, 4 * channels)
        return self.reduction(self.norm(maps)), (rows, columns)


_REPLACED: dict[type, type] = {
    AdaptivePadding: CornerPadding,
    PatchMerging: Merging,
    ShiftWindowMSA: ShiftedWindows,
    WindowMSA: WindowAttention,
}


class _Recomputed:
    """A forward method whose activations are not kept."""

    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        return checkpoint(self.forward, x, hw_shape, use_reentrant=False)
