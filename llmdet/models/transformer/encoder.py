"""The encoder: six times fusion, text self-attention and deformable image self-attention.

Grounding DINO's; without the first two it is that of DINO.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llmdet.models.quirks import Quirks
from llmdet.models.structures import EncoderOutput, FeaturePyramid, TextFeatures
from llmdet.models.transformer.attention import MultiheadAttention, MultiScaleDeformableAttention
from llmdet.models.transformer.feedforward import FFN
from llmdet.models.transformer.fusion import FusionLayer
from llmdet.models.transformer.positions import encode_text_positions
from llmdet.models.transformer.pyramid import pixel_centres
from llmdet.utils.construct import construct

Layer = TypeVar("Layer", bound=nn.Module)


class ImageLayer(nn.Module):
    """Deformable self-attention over all pixels, then a feed-forward net; norms after each."""

    def __init__(self, self_attn_cfg: dict[str, Any], ffn_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.self_attn = construct(
            MultiScaleDeformableAttention, self_attn_cfg, "encoder.layer_cfg.self_attn_cfg"
        )
        self.ffn = construct(FFN, ffn_cfg, "encoder.layer_cfg.ffn_cfg")
        dims = self.self_attn.output_proj.out_features
        self.norms = nn.ModuleList(nn.LayerNorm(dims) for _ in range(2))

    def forward(self, visual: Tensor, references: Tensor, pyramid: FeaturePyramid) -> Tensor:
        """Map [B, S, C] to [B, S, C]; references are [B, S, levels, 2] of the padded maps."""
        visual = self.self_attn(visual, pyramid.pos, visual, references, pyramid)
        return self.norms[1](self.ffn(self.norms[0](visual)))

    @property
    def floats_per_pixel(self) -> int:
        """Numbers that exist at the same time for a pixel at the widest step, without gradients."""
        attention, dims = self.self_attn, self.self_attn.output_proj.out_features
        samples = attention.num_heads * attention.num_levels * attention.num_points
        # Offsets, weights, locations; grid_sample also holds the samples of one level.
        sampling = 6 * dims + 5 * samples + attention.num_points * dims
        return max(sampling, 5 * dims + self.ffn.hidden_dims)


class TextLayer(nn.Module):
    """Self-attention over the tokens of one phrase, then a feed-forward net; norms after each."""

    def __init__(self, self_attn_cfg: dict[str, Any], ffn_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.self_attn = construct(
            MultiheadAttention, self_attn_cfg, "encoder.text_layer_cfg.self_attn_cfg"
        )
        self.ffn = construct(FFN, ffn_cfg, "encoder.text_layer_cfg.ffn_cfg")
        dims = self.self_attn.attn.embed_dim
        self.norms = nn.ModuleList(nn.LayerNorm(dims) for _ in range(2))

    def forward(self, text: Tensor, pos: Tensor, blocked: Tensor) -> Tensor:
        """Map [B, L, C] to [B, L, C]; ``blocked`` is [B * heads, L, L] bool."""
        text = self.self_attn(text, query_pos=pos, key_pos=pos, attn_mask=blocked)
        return self.norms[1](self.ffn(self.norms[0](text)))


class GroundingDINOEncoder(nn.Module):
    """Image and text features attend to themselves and to each other (2303.05499, section 3.2).

    Args:
        num_layers: how many times all three kinds of layer run.
        layer_cfg: settings of :class:`ImageLayer`.
        text_layer_cfg: settings of :class:`TextLayer`; None: text stays as it comes.
        fusion_layer_cfg: settings of :class:`FusionLayer`; None: image and text do not meet here.
        num_cp: number of layers whose activations are recomputed in the backward pass.
        quirks: deviations of the original to reproduce.
    """

    def __init__(
        self,
        num_layers: int,
        layer_cfg: dict[str, Any],
        text_layer_cfg: dict[str, Any] | None,
        fusion_layer_cfg: dict[str, Any] | None,
        num_cp: int = -1,
        quirks: Quirks | None = None,
    ) -> None:
        super().__init__()
        self.num_checkpointed = num_cp
        self.quirks = quirks or Quirks()
        where = "encoder.layer_cfg"
        image_layers = [construct(ImageLayer, layer_cfg, where) for _ in range(num_layers)]
        self.layers = nn.ModuleList(image_layers)
        text_layers = _optional_layers(TextLayer, text_layer_cfg, num_layers, "text_layer_cfg")
        fusion_layers = _optional_layers(
            FusionLayer, fusion_layer_cfg, num_layers, "fusion_layer_cfg"
        )
        self.text_layers = nn.ModuleList(text_layers)
        self.fusion_layers = nn.ModuleList(fusion_layers)
        self._text_heads = text_layers[0].self_attn.attn.num_heads if text_layers else 0
        self._fusion_heads = fusion_layers[0].attn.num_heads if fusion_layers else 0
        self.embed_dims = image_layers[0].self_attn.output_proj.out_features
        self._floats_of_image_layer = image_layers[0].floats_per_pixel

    def forward(self, pyramid: FeaturePyramid, text: TextFeatures) -> EncoderOutput:
        """Fuse image and text.

        Args:
            pyramid: image features, [B, S, C].
            text: text features already mapped to C, [B, L, C].

        Returns:
            Memory of both, and the pyramid that describes the layout of the image's.
        """
        references = (
            pixel_centres(pyramid)[:, :, None] * pyramid.valid_ratios[:, None]
        )  # [B, S, levels, 2]
        read_text = self._text_reader(text)
        padded_text = None if self.quirks.fusion_attends_to_padded_text else ~text.token_mask
        visual, language = pyramid.feat, text.embedded
        for index, image_layer in enumerate(self.layers):

            def run(visual: Tensor, language: Tensor, index=index, image_layer=image_layer):
                if self.fusion_layers:
                    fuse = self.fusion_layers[index]
                    visual, language = fuse(visual, language, pyramid.padding_mask, padded_text)
                language = read_text(index, language)
                return image_layer(visual, references, pyramid), language

            if index < self.num_checkpointed and torch.is_grad_enabled():
                visual, language = checkpoint(run, visual, language, use_reentrant=False)
            else:
                visual, language = run(visual, language)
        return EncoderOutput(visual, dataclasses.replace(text, embedded=language), pyramid)

    def floats_per_pixel(self, tokens: int, padded: bool) -> int:
        """Numbers that one more text holds for each pixel of its image, without gradients.

        They are the image's features and positions, and what exists at the same time in the
        widest of three steps; a test counts them.

        Args:
            tokens: L, of the text.
            padded: whether the pyramid has a padding mask.
        """
        dims, widest = self.embed_dims, self._floats_of_image_layer
        if self.fusion_layers:
            products = self._fusion_heads * tokens
            fusion = max(3 * dims + 2 * products, 2 * dims + (2 + padded) * products)
            widest = max(fusion, widest)
        return 2 * dims + widest

    def _text_reader(self, text: TextFeatures) -> Callable[[int, Tensor], Tensor]:
        """What a layer of a number makes of the text [B, L, C]."""
        if not self.text_layers:
            return lambda index, language: language
        positions = encode_text_positions(text.position_ids, self.embed_dims)
        positions = positions.to(text.embedded.dtype)
        blocked = self._text_mask(text)
        return lambda index, language: self.text_layers[index](language, positions, blocked)

    def _text_mask(self, text: TextFeatures) -> Tensor:
        blocked, heads = ~text.attention_mask, self._text_heads
        if self.quirks.head_major_text_mask:
            return blocked.repeat(heads, 1, 1)
        return blocked.repeat_interleave(heads, dim=0)  # [B * heads, L, L]


def _optional_layers(
    kind: Callable[..., Layer], settings: dict[str, Any] | None, number: int, name: str
) -> list[Layer]:
    if settings is None:
        return []
    return [construct(kind, settings, f"encoder.{name}") for _ in range(number)]
