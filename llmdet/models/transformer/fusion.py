"""Vision-language fusion: image and text attend to each other (GLIP, arXiv 2112.03857, 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from llmdet.errors import ConfigError


class BiMultiHeadAttention(nn.Module):
    """Two attentions over one set of query-key products: image to text, and text to image.

    The original clamps the products to +-50000 against overflow in half precision. Fused
    attention accumulates in float32 and subtracts the maximum itself, so the clamp, which no
    finite float32 product of trained weights reaches, has nothing left to do.

    Args:
        v_dim: width of image tokens.
        l_dim: width of text tokens.
        embed_dim: inner width, all heads together.
        num_heads: number of heads; divides ``embed_dim``.
        dropout: dropout on attention probabilities.
    """

    def __init__(
        self, v_dim: int, l_dim: int, embed_dim: int, num_heads: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ConfigError(f"fusion embed_dim={embed_dim} is no multiple of {num_heads} heads")
        self.num_heads, self.dropout = num_heads, dropout
        self.v_proj = nn.Linear(v_dim, embed_dim)
        self.l_proj = nn.Linear(l_dim, embed_dim)
        self.values_v_proj = nn.Linear(v_dim, embed_dim)
        self.values_l_proj = nn.Linear(l_dim, embed_dim)
        self.out_v_proj = nn.Linear(embed_dim, v_dim)
        self.out_l_proj = nn.Linear(embed_dim, l_dim)
        for layer in (module for module in self.children() if isinstance(module, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, tokens, C/heads]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None) -> Tensor:
        allowed = None if blocked is None else ~blocked[:, None, None]
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, allowed, dropout)
        return out.transpose(1, 2).flatten(2)

    def forward(
        self,
        visual: Tensor,
        language: Tensor,
        visual_padding: Tensor | None,
        language_padding: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return what image tokens read from text and what text tokens read from the image.

        Args:
            visual: [B, S, v_dim].
            language: [B, L, l_dim].
            visual_padding: [B, S] bool, True at padding, or None.
            language_padding: [B, L] bool, True at padding, or None.

        Returns:
            [B, S, v_dim] and [B, L, l_dim].
        """
        query, key = self._heads(self.v_proj(visual)), self._heads(self.l_proj(language))
        from_text = self.out_v_proj(
            self._attend(query, key, self._heads(self.values_l_proj(language)), language_padding)
        )
        from_image = self.out_l_proj(
            self._attend(key, query, self._heads(self.values_v_proj(visual)), visual_padding)
        )
        return from_text, from_image


class FusionLayer(nn.Module):
    """Bi-attention with layer scale; what is carried on is the normalised input.

    Args:
        v_dim, l_dim, embed_dim, num_heads, dropout: see :class:`BiMultiHeadAttention`.
        drop_path: probability of skipping the layer for a sample.
        init_values: initial layer scale.
    """

    def __init__(
        self,
        v_dim: int = 256,
        l_dim: int = 256,
        embed_dim: int = 1024,
        num_heads: int = 4,
        dropout: float = 0.1,
        drop_path: float = 0.0,
        init_values: float = 1e-4,
    ) -> None:
        super().__init__()
        self.layer_norm_v = nn.LayerNorm(v_dim)
        self.layer_norm_l = nn.LayerNorm(l_dim)
        self.attn = BiMultiHeadAttention(v_dim, l_dim, embed_dim, num_heads, dropout)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.gamma_v = nn.Parameter(torch.full((v_dim,), init_values))
        self.gamma_l = nn.Parameter(torch.full((l_dim,), init_values))

    def forward(
        self,
        visual: Tensor,
        language: Tensor,
        visual_padding: Tensor | None,
        language_padding: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Fuse [B, S, v_dim] and [B, L, l_dim]; paddings as in :class:`BiMultiHeadAttention`."""
        visual, language = self.layer_norm_v(visual), self.layer_norm_l(language)
        delta_v, delta_l = self.attn(visual, language, visual_padding, language_padding)
        return (
            visual + self.drop_path(self.gamma_v * delta_v),
            language + self.drop_path(self.gamma_l * delta_l),
        )
