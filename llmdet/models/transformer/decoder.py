"""The decoder: queries read each other, the text and the image, and move their boxes.

Grounding DINO's; without attention to text it is that of DINO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llmdet.errors import ConfigError
from llmdet.models.quirks import Quirks
from llmdet.models.structures import DecoderOutput, EncoderOutput
from llmdet.models.transformer.attention import MultiheadAttention, MultiScaleDeformableAttention
from llmdet.models.transformer.boxes import inverse_sigmoid
from llmdet.models.transformer.feedforward import FFN, MLP
from llmdet.models.transformer.positions import encode_coordinates
from llmdet.utils.construct import construct

#: Keeps refined boxes off 0 and 1, where the sigmoid has no slope (DINO).
REFINEMENT_EPS = 1e-3


class DecoderLayer(nn.Module):
    """Self-attention, attention to text, deformable attention to the image, feed-forward net.

    Args:
        self_attn_cfg, cross_attn_text_cfg: settings of :class:`MultiheadAttention`; None for the
            second: no attention to text, as in DINO.
        cross_attn_cfg: settings of :class:`MultiScaleDeformableAttention`.
        ffn_cfg: settings of :class:`FFN`.
    """

    def __init__(
        self,
        self_attn_cfg: dict[str, Any],
        cross_attn_text_cfg: dict[str, Any] | None,
        cross_attn_cfg: dict[str, Any],
        ffn_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        where = "decoder.layer_cfg"
        self.self_attn = construct(MultiheadAttention, self_attn_cfg, f"{where}.self_attn_cfg")
        self.cross_attn_text: MultiheadAttention | None = None
        if cross_attn_text_cfg is not None:
            self.cross_attn_text = construct(
                MultiheadAttention, cross_attn_text_cfg, f"{where}.cross_attn_text_cfg"
            )
        self.cross_attn = construct(
            MultiScaleDeformableAttention, cross_attn_cfg, f"{where}.cross_attn_cfg"
        )
        self.ffn = construct(FFN, ffn_cfg, f"{where}.ffn_cfg")
        dims = self.self_attn.attn.embed_dim
        parts = 3 if self.cross_attn_text is None else 4
        self.norms = nn.ModuleList(nn.LayerNorm(dims) for _ in range(parts))

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        references: Tensor,
        encoded: EncoderOutput,
        blocked: Tensor | None,
    ) -> Tensor:
        """Run the layer.

        Args:
            query: [B, Q, C] content of the queries.
            query_pos: [B, Q, C] encoding of their boxes.
            references: [B, Q, levels, 4] cxcywh in 0..1 of the padded maps.
            encoded: memory of image and text.
            blocked: [Q, Q] bool, True where a query must not see another, or None.

        Returns:
            [B, Q, C].
        """
        text = encoded.text
        query = self.norms[0](
            self.self_attn(query, query_pos=query_pos, key_pos=query_pos, attn_mask=blocked)
        )
        if self.cross_attn_text is not None:
            query = self.norms[1](
                self.cross_attn_text(
                    query, text.embedded, query_pos=query_pos, key_padding_mask=~text.token_mask
                )
            )
        query = self.norms[-2](
            self.cross_attn(query, query_pos, encoded.memory, references, encoded.pyramid)
        )
        return self.norms[-1](self.ffn(query))


class GroundingDINODecoder(nn.Module):
    """Decoder with iterative box refinement (DINO, arXiv 2203.03605; 2303.05499, section 3.3).

    Args:
        num_layers: number of layers, D.
        layer_cfg: settings of :class:`DecoderLayer`.
        return_intermediate: must be True: every layer is supervised.
        post_norm_cfg: must be None; the norm of the outputs is always a LayerNorm.
        num_cp: number of layers whose activations are recomputed in the backward pass.
        quirks: deviations of the original to reproduce.
    """

    def __init__(
        self,
        num_layers: int,
        layer_cfg: dict[str, Any],
        return_intermediate: bool = True,
        post_norm_cfg: None = None,
        num_cp: int = -1,
        quirks: Quirks | None = None,
    ) -> None:
        super().__init__()
        self.quirks = quirks or Quirks()
        if not return_intermediate or post_norm_cfg is not None:
            raise ConfigError(
                "decoder.return_intermediate must be True and decoder.post_norm_cfg None: "
                "every layer is supervised and normalised by decoder.norm"
            )
        self.num_layers, self.num_checkpointed = num_layers, num_cp
        layers = [
            construct(DecoderLayer, layer_cfg, "decoder.layer_cfg") for _ in range(num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self.embed_dims = layers[0].self_attn.attn.embed_dim
        # Four coordinates of C / 2 features each.
        self.ref_point_head = MLP(self.embed_dims * 2, self.embed_dims, self.embed_dims, 2)
        self.norm = nn.LayerNorm(self.embed_dims)

    def forward(
        self,
        query: Tensor,
        references: Tensor,
        encoded: EncoderOutput,
        box_branches: Sequence[nn.Module],
        blocked: Tensor | None = None,
    ) -> DecoderOutput:
        """Refine ``query`` and its boxes layer by layer.

        Args:
            query: [B, Q, C] content of the queries.
            references: [B, Q, 4] cxcywh in 0..1 of the valid image.
            encoded: memory of image and text.
            box_branches: one map from C to 4 box deltas per layer.
            blocked: [Q, Q] bool, True where a query must not see another, or None.
        """
        ratios = encoded.pyramid.valid_ratios
        ratios = torch.cat([ratios, ratios], -1)[:, None]  # [B, 1, levels, 4]
        hidden_states, all_references = [], [references]
        for index, (layer, box_branch) in enumerate(zip(self.layers, box_branches, strict=False)):
            scaled = references[:, :, None] * ratios
            on_padded = self.quirks.query_positions_on_padded_batch
            positions = scaled[:, :, 0] if on_padded else references
            encoding = encode_coordinates(positions, self.embed_dims // 2)
            query_pos = self.ref_point_head(encoding.to(query.dtype))
            if index < self.num_checkpointed and torch.is_grad_enabled():
                query = checkpoint(
                    layer, query, query_pos, scaled, encoded, blocked, use_reentrant=False
                )
            else:
                query = layer(query, query_pos, scaled, encoded, blocked)
            refined = refine(box_branch(query), references, REFINEMENT_EPS)
            hidden_states.append(self.norm(query))
            # The next layer starts from the box without its history, the head sees it with
            # (look forward twice).
            all_references.append(refined)
            references = refined.detach()
        return DecoderOutput(torch.stack(hidden_states), torch.stack(all_references))


def refine(deltas: Tensor, references: Tensor, eps: float = 1e-5) -> Tensor:
    """Move boxes [..., 4] in 0..1 by ``deltas`` [..., 4] in inverse-sigmoid space, in float32."""
    anchors = inverse_sigmoid(references, eps)
    return (deltas + anchors).sigmoid()
