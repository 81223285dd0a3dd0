"""Vision-language fusion: image and text attend to each other (GLIP, arXiv 2112.03857, 3.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.ops.linear import batched_linear

#: Products of queries and keys in float16, which ends at 65504, are kept within this (GLIP).
LARGEST_PRODUCT = 50_000.0


class BiMultiHeadAttention(nn.Module):
    """Two attentions over one set of query-key products: image to text, and text to image.

    The original clamps the products to +-50000 against overflow. Only float16 has less room than
    the products of trained weights could need, so here only its are clamped.

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
        self.head_dims = embed_dim // num_heads
        self.v_proj = nn.Linear(v_dim, embed_dim)
        self.l_proj = nn.Linear(l_dim, embed_dim)
        self.values_v_proj = nn.Linear(v_dim, embed_dim)
        self.values_l_proj = nn.Linear(l_dim, embed_dim)
        self.out_v_proj = nn.Linear(embed_dim, v_dim)
        self.out_l_proj = nn.Linear(embed_dim, l_dim)
        for layer in (module for module in self.children() if isinstance(module, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

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
        attend = self._attend_folded if self._folds(language.shape[1]) else self._attend_both
        return attend(visual, language, visual_padding, language_padding)

    def _folds(self, tokens: int) -> bool:
        """Whether folding saves more than it costs; in all released models, up to 256 tokens.

        A pixel gets a number for each token and head in place of ``head_dims`` for each head. On
        a processor folding was faster at 1.3 times as many, and slower at 2.5. A program that is
        exported for any number of tokens folds.
        """
        if isinstance(tokens, torch.SymInt):
            return True
        return tokens <= 1.5 * self.head_dims

    def _attend_both(
        self,
        visual: Tensor,
        language: Tensor,
        visual_padding: Tensor | None,
        language_padding: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The formula as it stands, through fused attention: for inner widths below the text's."""
        query, key = self._heads(self.v_proj(visual)), self._heads(self.l_proj(language))
        from_text = self.out_v_proj(
            self._attend(query, key, self._heads(self.values_l_proj(language)), language_padding)
        )
        from_image = self.out_l_proj(
            self._attend(key, query, self._heads(self.values_v_proj(visual)), visual_padding)
        )
        return from_text, from_image

    def _attend_folded(
        self,
        visual: Tensor,
        language: Tensor,
        visual_padding: Tensor | None,
        language_padding: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The same sums in another order: a quarter of the products.

        Pixels are many and tokens few, so the maps of the image's width that stand beside a token
        are multiplied with the token instead of with every pixel: (v W) k = v (W k). Products of
        queries and keys are made once and normalised over tokens and over pixels. The text's few
        queries need no kernel of their own, which would leave most of a GPU idle.
        """
        key = self._heads(self.l_proj(language)) / math.sqrt(self.head_dims)  # [B, heads, L, d]
        products = batched_linear(
            visual,
            (key @ self._per_head(self.v_proj.weight)).flatten(1, 2),
            (key @ self._per_head(self.v_proj.bias)[..., None]).flatten(1),
        )  # [B, S, heads * L]
        if products.dtype == torch.float16:
            products = products.clamp(-LARGEST_PRODUCT, LARGEST_PRODUCT)

        shares = self._dropped(_softmax_over_pixels(products, visual_padding))
        pixels = batched_linear(shares.transpose(1, 2), visual.transpose(1, 2))
        del shares  # as large as products
        pixels = pixels.unflatten(1, (self.num_heads, -1))  # [B, heads, L, v_dim]
        values = pixels @ self._per_head(self.values_v_proj.weight).transpose(1, 2)
        values = values.transpose(1, 2).flatten(2) + self.values_v_proj.bias
        from_image = self.out_l_proj(values)

        over_tokens = products.unflatten(2, (self.num_heads, -1))  # [B, S, heads, L]
        if language_padding is not None:
            over_tokens = over_tokens.masked_fill_(language_padding[:, None, None], float("-inf"))
        tokens = self._heads(self.values_l_proj(language))  # [B, heads, L, d]
        tokens = tokens @ self.out_v_proj.weight.unflatten(1, (self.num_heads, -1)).permute(1, 2, 0)
        from_text = batched_linear(
            self._dropped(over_tokens.softmax(-1)).flatten(2),
            tokens.flatten(1, 2).transpose(1, 2),
            self.out_v_proj.bias.expand(tokens.shape[0], -1),
        )
        return from_text, from_image

    def _dropped(self, probabilities: Tensor) -> Tensor:
        return F.dropout(probabilities, self.dropout, self.training)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, tokens, C/heads]

    def _per_head(self, parameter: Tensor) -> Tensor:
        return parameter.unflatten(0, (self.num_heads, -1))  # [heads, C/heads, ...]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, blocked: Tensor | None) -> Tensor:
        allowed = None if blocked is None else ~blocked[:, None, None]
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, allowed, dropout)
        return out.transpose(1, 2).flatten(2)


def _softmax_over_pixels(products: Tensor, padding: Tensor | None) -> Tensor:
    """Softmax of [B, S, n] over the S pixels that are not padding ([B, S] bool, or None)."""
    if padding is not None:
        products = products.masked_fill(padding[..., None], float("-inf"))
    return products.softmax(1)


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
