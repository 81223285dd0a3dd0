"""Region cross-attention: visual tokens inside the language model look at the image again.

The block stands between self-attention and MLP of chosen decoder layers (paper section 3.2);
:mod:`llmdet.models.systems.llmdet.adapter` puts it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.structures import FeaturePyramid
from llmdet.models.transformer.attention import MultiScaleDeformableAttention


@dataclass(frozen=True)
class VisualContext:
    """What n visual tokens of a batch of conversations look at.

    Tokens of several conversations may look at one image; memory is never copied for them:
    token i is number ``slot[i]`` of those that look at image ``image[i]``.
    """

    memory: Tensor  # [B, S, C] encoder memory
    pyramid: FeaturePyramid
    references: Tensor  # [n, levels, 4] cxcywh in 0..1 of the padded maps
    query_pos: Tensor  # [n, C]
    row: Tensor  # [n] int64 in 0..R-1, the conversation of each token
    column: Tensor  # [n] int64 in 0..T-1, its position there
    image: Tensor  # [n] int64 in 0..B-1
    slot: Tensor  # [n] int64 in 0..slots-1
    slots: int  # most tokens that look at one image
    conversations: int  # R

    def repeat(self, times: int) -> VisualContext:
        """Each conversation ``times`` times in a row, as beams and several samples need."""
        if times == 1:
            return self
        copy = torch.arange(times, device=self.slot.device)
        return replace(
            self,
            references=self.references.repeat_interleave(times, 0),
            query_pos=self.query_pos.repeat_interleave(times, 0),
            row=(self.row[:, None] * times + copy).flatten(),
            column=self.column.repeat_interleave(times, 0),
            image=self.image.repeat_interleave(times, 0),
            slot=(self.slot[:, None] * times + copy).flatten(),
            slots=self.slots * times,
            conversations=self.conversations * times,
        )


class ContextHolder:
    """Hands the current context to the layers, past the language model's own signatures."""

    def __init__(self) -> None:
        self.current: VisualContext | None = None

    @contextmanager
    def use(self, context: VisualContext | None) -> Iterator[None]:
        """Sets the context for the duration of a ``with`` block."""
        previous, self.current = self.current, context
        try:
            yield
        finally:
            self.current = previous


class RegionAttention(nn.Module):
    """Deformable attention from visual tokens into encoder memory, with bottleneck and norm.

    Args:
        hidden_size: width H of the language model.
        embed_dims: width C of encoder memory.
        num_heads: heads of the deformable attention.
        num_levels: levels of the pyramid.
        num_points: sampling points per head and level.
        eps: of the RMS norm.
        norm: "post": the norm's output replaces the visual tokens, as in the released weights,
            and so changes the language model even while ``up_proj`` is zero. "pre": the norm
            is inside the residual branch.
    """

    def __init__(
        self,
        hidden_size: int,
        embed_dims: int = 256,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
        eps: float = 1e-6,
        norm: str = "post",
    ) -> None:
        super().__init__()
        if norm not in ("post", "pre"):
            raise ConfigError(f"region_attention.norm='{norm}' is unknown; 'post' or 'pre'")
        self.pre_norm = norm == "pre"
        self.down_proj = nn.Linear(hidden_size, embed_dims)
        self.attention = MultiScaleDeformableAttention(
            embed_dims, num_heads, num_levels, num_points, dropout=0.0
        )
        self.up_proj = nn.Linear(embed_dims, hidden_size)
        nn.init.zeros_(self.up_proj.weight)
        nn.init.zeros_(self.up_proj.bias)
        self.norm = nn.RMSNorm(hidden_size, eps=eps)

    def forward(self, visual: Tensor, context: VisualContext) -> Tensor:
        """Visual tokens [n, H] before and after looking."""
        if self.pre_norm:
            return visual + self.up_proj(self._look(self.down_proj(self.norm(visual)), context))
        return self.norm(visual + self.up_proj(self._look(self.down_proj(visual), context)))

    def _look(self, query: Tensor, context: VisualContext) -> Tensor:
        """[n, C] to [n, C]: the tokens that look at one image share its value projection."""
        attended = self.attention.attend(
            _pack(query, context),
            _pack(context.query_pos.to(query.dtype), context),
            context.memory,
            _pack(context.references, context),
            context.pyramid,
        )
        return attended[context.image, context.slot]


def _pack(values: Tensor, context: VisualContext) -> Tensor:
    """[n, ...] to [B, slots, ...], zero where fewer tokens look at an image."""
    packed = values.new_zeros(len(context.memory), context.slots, *values.shape[1:])
    return packed.index_put((context.image, context.slot), values)
