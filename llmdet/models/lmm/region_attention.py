"""Region cross-attention: visual tokens inside the language model look at the image again.

The block stands between self-attention and MLP of chosen decoder layers (paper section 3.2);
:mod:`llmdet.models.lmm.decoder_layer` puts it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.structures import FeaturePyramid
from llmdet.models.transformer.attention import MultiScaleDeformableAttention


@dataclass(frozen=True)
class VisualContext:
    """What the V visual tokens of each of R sequences look at.

    Several sequences may belong to one image; memory is never copied for them: sequence r is
    number ``slot[r]`` of image ``image[r]``.
    """

    memory: Tensor  # [B, S, C] encoder memory
    pyramid: FeaturePyramid
    references: Tensor  # [R, V, levels, 4] cxcywh in 0..1 of the padded maps
    query_pos: Tensor  # [R, V, C]
    positions: Tensor  # [R, V] int64, where in its sequence each visual token stands
    image: Tensor  # [R] int64 in 0..B-1
    slot: Tensor  # [R] int64 in 0..slots-1
    slots: int  # most sequences of one image

    def repeat(self, times: int) -> VisualContext:
        """Each sequence ``times`` times in a row, as beams and several samples need."""
        if times == 1:
            return self
        offset = torch.arange(times, device=self.slot.device)
        return replace(
            self,
            references=self.references.repeat_interleave(times, 0),
            query_pos=self.query_pos.repeat_interleave(times, 0),
            positions=self.positions.repeat_interleave(times, 0),
            image=self.image.repeat_interleave(times, 0),
            slot=(self.slot[:, None] * times + offset).flatten(),
            slots=self.slots * times,
        )


def image_slots(counts: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Image and slot of each sequence, and the number of slots, for ``counts`` per image."""
    image = [number for number, count in enumerate(counts) for _ in range(count)]
    slot = [place for count in counts for place in range(count)]
    tensors = (torch.tensor(values, dtype=torch.int64) for values in (image, slot))
    on_device = [tensor.to(device, non_blocking=True) for tensor in tensors]
    return on_device[0], on_device[1], max(counts, default=0)


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

    def checkpoint_contexts(self) -> tuple[Any, Any]:
        """For ``torch.utils.checkpoint``: the recomputation sees the context of the forward."""
        return self.use(self.current), self.use(self.current)


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
        """Visual tokens [R, V, H] before and after looking."""
        if self.pre_norm:
            return visual + self.up_proj(self._look(self.down_proj(self.norm(visual)), context))
        return self.norm(visual + self.up_proj(self._look(self.down_proj(visual), context)))

    def _look(self, query: Tensor, context: VisualContext) -> Tensor:
        """[R, V, C] to [R, V, C]: the sequences of one image share its value projection."""
        attended = self.attention.attend(
            _pack(query, context),
            _pack(context.query_pos.to(query.dtype), context),
            context.memory,
            _pack(context.references, context),
            context.pyramid,
        )
        return _unpack(attended, context)


def _pack(values: Tensor, context: VisualContext) -> Tensor:
    """[R, V, ...] to [B, slots * V, ...], zero where an image has fewer sequences."""
    batch = len(context.memory)
    packed = values.new_zeros(batch, context.slots, *values.shape[1:])
    return packed.index_put((context.image, context.slot), values).flatten(1, 2)


def _unpack(packed: Tensor, context: VisualContext) -> Tensor:
    """The inverse of :func:`_pack`."""
    by_slot = packed.unflatten(1, (context.slots, -1))
    return by_slot[context.image, context.slot]
