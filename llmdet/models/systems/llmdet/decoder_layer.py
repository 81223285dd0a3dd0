"""Decoder layers of a causal language model, rebuilt from their parts with region attention.

The model's code stays as transformers has it, the keys of its weights do not change, and
``generate()`` runs unmodified: the block acts on the visual positions of the prompt, while
the prompt is read, and on nothing afterwards.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from llmdet.errors import ConfigError

from .region_attention import ContextHolder, RegionAttention, VisualContext

#: Parts that a decoder layer must have, and no others.
_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


class RegionDecoderLayer(GradientCheckpointingLayer):
    """Norm, self-attention, residual, region attention, norm, MLP, residual.

    Args:
        layer: a decoder layer of Qwen2's and Llama's kind; its parts are taken over.
        attention: acts on visual tokens between the two residuals.
        holder: tells which tokens these are and what they look at.

    Raises:
        ConfigError: the layer has other parts, so that there is no known place for the block.
    """

    input_layernorm: Any
    self_attn: Any
    post_attention_layernorm: Any
    mlp: Any

    def __init__(self, layer: nn.Module, attention: RegionAttention, holder: ContextHolder) -> None:
        super().__init__()
        parts = dict(layer.named_children())
        if set(parts) != set(_PARTS):
            raise ConfigError(
                f"region_attention needs decoder layers of the parts {', '.join(_PARTS)}; "
                f"{type(layer).__name__} has {', '.join(parts)}. Use a Qwen2- or Llama-like "
                "model, or region_attention=None"
            )
        for name, part in parts.items():
            self.add_module(name, part)
        self.region_attention = attention
        self.holder = holder

    def forward(self, hidden_states: Tensor, past_key_values: Any = None, **kwargs: Any) -> Tensor:
        """Hidden states [R, T, H] in and out; other arguments go to self-attention."""
        context = self.holder.current
        # asked before self-attention, which adds to the cache
        reads_prompt = _past_length(past_key_values, self.self_attn.layer_idx) == 0
        attended, _ = self.self_attn(
            hidden_states=self.input_layernorm(hidden_states),
            past_key_values=past_key_values,
            **kwargs,
        )
        hidden_states = hidden_states + attended
        if context is not None and reads_prompt:
            hidden_states = self._look(hidden_states, context)
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))

    def _look(self, hidden_states: Tensor, context: VisualContext) -> Tensor:
        context = context.repeat(len(hidden_states) // context.conversations)
        places = context.row, context.column
        visual = self.region_attention(hidden_states[places], context)
        return hidden_states.index_put(places, visual.to(hidden_states.dtype))


def _past_length(past_key_values: Any, layer: int) -> int:
    return 0 if past_key_values is None else past_key_values.get_seq_length(layer)
