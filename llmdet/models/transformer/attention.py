"""Attention modules: dense with residual, and multi-scale deformable."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.structures import FeaturePyramid
from llmdet.ops.deformable_attention import deformable_attention
from llmdet.ops.linear import linear
from llmdet.ops.precision import float32_island


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention, added to the query.

    Args:
        embed_dims: width C of queries, keys and values.
        num_heads: number of heads; divides C.
        dropout: dropout on attention probabilities and on the output.
    """

    def __init__(self, embed_dims: int = 256, num_heads: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        *,
        query_pos: Tensor | None = None,
        key_pos: Tensor | None = None,
        attn_mask: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from ``query`` to ``key``.

        Args:
            query: [B, Q, C].
            key: [B, K, C], also the values; the query itself where None.
            query_pos: [B, Q, C] added to the query.
            key_pos: [B, K, C] added to the keys, not to the values.
            attn_mask: bool, True = blocked; [Q, K] or [B * heads, Q, K].
            key_padding_mask: [B, K] bool, True = blocked.

        Returns:
            [B, Q, C] query + attention.
        """
        value = query if key is None else key
        queries, keys, values = self._projected(
            query if query_pos is None else query + query_pos,
            value if key_pos is None else value + key_pos,
            value,
        )
        out = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            self._allowed(attn_mask, key_padding_mask),
            self.attn.dropout if self.training else 0.0,
        )
        out = out.transpose(1, 2).flatten(2)
        out = linear(out, self.attn.out_proj.weight, self.attn.out_proj.bias)
        return query + self.dropout(out)

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values, [B, heads, tokens, C / heads] each."""
        parts = zip(
            (query, key, value),
            self.attn.in_proj_weight.chunk(3),
            self.attn.in_proj_bias.chunk(3),
            strict=True,
        )
        heads = (self.attn.num_heads, -1)
        return [linear(*part).unflatten(-1, heads).transpose(1, 2) for part in parts]

    def _allowed(self, attn_mask: Tensor | None, padding: Tensor | None) -> Tensor | None:
        """Where queries may look, of a shape that broadcasts to [B, heads, Q, K]."""
        allowed = None
        if attn_mask is not None:
            blocked = attn_mask
            if attn_mask.dim() == 3:
                blocked = attn_mask.unflatten(0, (-1, self.attn.num_heads))
            allowed = ~blocked
        if padding is None:
            return allowed
        present = ~padding[:, None, None]
        return present if allowed is None else allowed & present


class MultiScaleDeformableAttention(nn.Module):
    """Attention to a few learned points of each pyramid level around a reference (2010.04159, 4.1).

    Args:
        embed_dims: width C.
        num_heads: number of heads; divides C.
        num_levels: levels of the pyramid.
        num_points: sampling points per head and level.
        dropout: dropout on the output.

    Raises:
        ConfigError: ``embed_dims`` is no multiple of ``num_heads``.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ConfigError(f"embed_dims={embed_dims} is no multiple of num_heads={num_heads}")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(embed_dims, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dims, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)
        self.init_weights()

    def init_weights(self) -> None:
        """Let each head look along its own direction, point p at distance p."""
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        offsets = directions[:, None, None] * distances[:, None]  # [heads, 1, P, 2]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.repeat(1, self.num_levels, 1, 1).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor | None,
        value: Tensor,
        reference_points: Tensor,
        pyramid: FeaturePyramid,
    ) -> Tensor:
        """Attend from ``query`` into ``value``.

        Args:
            query: [B, Q, C].
            query_pos: [B, Q, C] added to the query, or None.
            value: [B, S, C] features laid out as ``pyramid``.
            reference_points: [B, Q, levels, 2] (x, y) or [B, Q, levels, 4] cxcywh, in 0..1 of
                the padded maps.
            pyramid: shapes and padding of ``value``.

        Returns:
            [B, Q, C] query + attention.
        """
        out = self.attend(query, query_pos, value, reference_points, pyramid)
        return query + self.dropout(out)

    def attend(
        self,
        query: Tensor,
        query_pos: Tensor | None,
        value: Tensor,
        reference_points: Tensor,
        pyramid: FeaturePyramid,
    ) -> Tensor:
        """The attention [B, Q, C] by itself; arguments as in :meth:`forward`."""
        values = self.value_proj(value)
        if pyramid.padding_mask is not None:
            values = values.masked_fill(pyramid.padding_mask[..., None], 0.0)
        values = values.unflatten(-1, (self.num_heads, -1))  # [B, S, heads, C / heads]
        positioned = query if query_pos is None else query + query_pos
        per_point = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(positioned).unflatten(-1, (*per_point, 2))
        weights = self.attention_weights(positioned).unflatten(-1, (self.num_heads, -1))
        weights = weights.softmax(-1).unflatten(-1, per_point[1:])  # [B, Q, heads, levels, P]
        locations = sampling_locations(reference_points, offsets, pyramid.spatial_shapes)
        out = deformable_attention(values, pyramid.shapes, locations, weights)
        return self.output_proj(out)


@float32_island
def sampling_locations(reference_points: Tensor, offsets: Tensor, spatial_shapes: Tensor) -> Tensor:
    """Turn learned offsets into places on the maps.

    Args:
        reference_points: [B, Q, levels, 2 or 4]; offsets count pixels around points, and halves
            of the box shared among the P points around boxes.
        offsets: [B, Q, heads, levels, P, 2] (x, y).
        spatial_shapes: [levels, 2] (height, width).

    Returns:
        [B, Q, heads, levels, P, 2] float32 (x, y) in 0..1.
    """
    references = reference_points[:, :, None, :, None]  # [B, Q, 1, levels, 1, 2 or 4]
    if references.shape[-1] == 2:
        sizes = spatial_shapes.flip(-1)[:, None].to(offsets.dtype)  # [levels, 1, (w, h)]
        return references + offsets / sizes
    num_points = offsets.shape[-2]
    return references[..., :2] + offsets / num_points * references[..., 2:] * 0.5
