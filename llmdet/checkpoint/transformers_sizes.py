"""Bring a detector to sizes that transformers' MM-Grounding-DINO can have, without another result.

Transformers' class has one number for several sizes: text layers and fusion are half as wide as
the FFN of image layers, and have half as many heads; the decoder's three attentions have one
number of heads. Three changes leave what the model computes as it is:

* An FFN with more hidden units, whose weights are 0.
* Fusion with wider heads: what is added is 0, and queries are scaled for the longer root.
* Deformable attention with each head cut into equal parts: all sample where the whole one did.

Heads of ordinary attention cannot be changed in this way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmdet.errors import CheckpointError

StateDict = dict[str, Tensor]

# What a config need not say.
_ATTENTION_HEADS, _FUSION_HEADS = 8, 4


@dataclass(frozen=True)
class Heads:
    """Numbers of attention heads, which the shapes of weights do not tell."""

    image: int  # of the deformable attention of image layers
    text: int  # of text layers
    fusion: int
    decoder: int  # of the decoder's self-attention
    decoder_text: int  # of its attention to the text
    decoder_image: int  # of its deformable attention

    @classmethod
    def of_model(cls, model: Mapping[str, Any]) -> Heads:
        """Read them from the ``model`` of our config; without one, as in published models."""
        if "encoder" not in model or "decoder" not in model:
            return cls(image=8, text=4, fusion=4, decoder=8, decoder_text=8, decoder_image=8)
        encoder, layer = model["encoder"], model["decoder"].get("layer_cfg", {})
        return cls(
            image=_heads(encoder.get("layer_cfg", {}), "self_attn_cfg"),
            text=_heads(encoder.get("text_layer_cfg", {}), "self_attn_cfg"),
            fusion=encoder.get("fusion_layer_cfg", {}).get("num_heads", _FUSION_HEADS),
            decoder=_heads(layer, "self_attn_cfg"),
            decoder_text=_heads(layer, "cross_attn_text_cfg"),
            decoder_image=_heads(layer, "cross_attn_cfg"),
        )

    def check(self) -> None:
        """Raise CheckpointError where transformers' model cannot have these numbers."""
        _check_equal("encoder.fusion_layer_cfg", self.fusion, self.text, "the text layers'")
        place = "decoder.layer_cfg.cross_attn_text_cfg"
        _check_equal(place, self.decoder_text, self.decoder, "the decoder's self-attention's")
        _check_divides("encoder.layer_cfg.self_attn_cfg", self.image, 2 * self.text)
        _check_divides("decoder.layer_cfg.cross_attn_cfg", self.decoder_image, self.decoder)


def fit_sizes(state_dict: Mapping[str, Tensor], heads: Heads) -> StateDict:
    """Weights of the same function in sizes of transformers' model; bit by bit where they fit.

    Args:
        state_dict: detector weights under our names.
        heads: those of the detector.

    Raises:
        CheckpointError: no change of this module brings its attention heads into that format.
    """
    heads.check()
    image = state_dict["encoder.layers.0.ffn.layers.0.0.weight"].shape[0]
    text = state_dict["encoder.text_layers.0.ffn.layers.0.0.weight"].shape[0]
    fusion = state_dict["encoder.fusion_layers.0.attn.v_proj.weight"].shape[0]
    half = max((image + 1) // 2, text, fusion)
    half = math.ceil(half / heads.fusion) * heads.fusion
    result: StateDict = {}
    for key, value in state_dict.items():
        if key.startswith("encoder.layers."):
            value = _wider_ffn(key, value, 2 * half)
            value = _cut_heads(key, value, heads.image, 2 * heads.text)
        elif key.startswith("encoder.text_layers."):
            value = _wider_ffn(key, value, half)
        elif found := re.match(r"encoder\.fusion_layers\.\d+\.attn\.(\w+)\.", key):
            value = _wider_fusion(found[1], key, value, half, heads.fusion)
        elif re.match(r"decoder\.layers\.\d+\.cross_attn\.", key):
            value = _cut_heads(key, value, heads.decoder_image, heads.decoder)
        result[key] = value
    return result


def _wider_ffn(key: str, value: Tensor, width: int) -> Tensor:
    """Give an FFN ``width`` hidden units."""
    if ".ffn.layers.0.0." in key:
        return _padded(value, 0, width)
    if key.endswith(".ffn.layers.1.weight"):
        return _padded(value, 1, width)
    return value


def _wider_fusion(name: str, key: str, value: Tensor, width: int, heads: int) -> Tensor:
    """Give the heads of a fusion layer an inner width of ``width``, all together."""
    if name.startswith("out_"):
        if key.endswith(".bias") or value.shape[1] == width:
            return value
        return _padded(value.unflatten(1, (heads, -1)), 2, width // heads).flatten(1)
    if value.shape[0] == width:
        return value
    before = value.shape[0]
    value = _padded(value.unflatten(0, (heads, -1)), 1, width // heads).flatten(0, 1)
    # Products are divided by the root of the width of a head.
    return value * math.sqrt(width / before) if name == "v_proj" else value


def _cut_heads(key: str, value: Tensor, heads: int, wanted: int) -> Tensor:
    """Let ``wanted / heads`` heads sample where one of a deformable attention did."""
    if heads == wanted or not re.search(r"\.(sampling_offsets|attention_weights)\.", key):
        return value
    return value.unflatten(0, (heads, -1)).repeat_interleave(wanted // heads, 0).flatten(0, 1)


def _padded(value: Tensor, dim: int, size: int) -> Tensor:
    """``value`` with zeros behind it along ``dim``, up to ``size``."""
    if value.shape[dim] == size:
        return value
    shape = list(value.shape)
    shape[dim] = size - value.shape[dim]
    return torch.cat([value, value.new_zeros(shape)], dim)


def _heads(layer: Mapping[str, Any], attention: str) -> int:
    return layer.get(attention, {}).get("num_heads", _ATTENTION_HEADS)


def _check_equal(place: str, number: int, wanted: int, whose: str) -> None:
    if number != wanted:
        raise CheckpointError(
            f"transformers' MM-Grounding-DINO has one number for the heads in model.{place} and "
            f"{whose}, and this model has {number} and {wanted}"
        )


def _check_divides(place: str, number: int, wanted: int) -> None:
    if wanted % number:
        raise CheckpointError(
            f"transformers' MM-Grounding-DINO wants {wanted} heads in model.{place} beside the "
            f"other attentions of this model; it has {number}, which cannot be cut into {wanted}"
        )
