"""Backbones of mmdet that need a change to run on current torch."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmdet.models.backbones import SwinTransformer as MMDetSwin
from mmdet.models.backbones.swin import SwinBlock, WindowMSA
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llmdet.registry import MODELS


@MODELS.register_module()
class SwinTransformer(MMDetSwin):
    """mmdet's Swin with fused attention, and ``with_cp`` in the way that torch now asks for.

    Reentrant checkpoints, which mmdet's blocks use, are deprecated, and lose the gradients of a
    block whose input needs none.

    Args:
        with_cp: recompute the activations of every block in the backward pass.
        settings: those of :class:`mmdet.models.SwinTransformer`.
    """

    def __init__(self, *, with_cp: bool = False, **settings: Any) -> None:
        super().__init__(with_cp=False, **settings)
        for module in self.modules():
            if isinstance(module, WindowMSA):
                module.__class__ = WindowAttention
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
        tokens = x.shape[1]
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.unflatten(0, (tokens, tokens)).permute(2, 0, 1)  # [heads, N, N]
        if mask is not None:
            # Heads of all windows side by side, so that images share what is added.
            qkv = qkv.unflatten(1, (-1, len(mask))).flatten(2, 3)  # [3, B, windows * heads, N, d]
            bias = (bias + mask[:, None]).flatten(0, 1)  # [windows * heads, N, N]
        query, key, value = qkv.unbind()
        dropout = self.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(
            query, key, value, bias.to(query.dtype), dropout, scale=self.scale
        )
        out = out.reshape(len(x), self.num_heads, tokens, -1).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(out))


class _Recomputed:
    """A forward method whose activations are not kept."""

    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        return checkpoint(self.forward, x, hw_shape, use_reentrant=False)
