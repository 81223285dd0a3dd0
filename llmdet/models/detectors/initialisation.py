"""Random weights of what a detector does not take from elsewhere, as Deformable DETR has them."""

from __future__ import annotations

from typing import Any

from torch import nn

from llmdet.models.transformer.attention import MultiScaleDeformableAttention


def init_own_weights(detector: Any) -> None:
    """Initialise a :class:`DINODetector` but for its backbone, neck, head and prompts."""
    for parameter in [*detector.encoder.parameters(), *detector.decoder.parameters()]:
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for module in detector.modules():
        if isinstance(module, MultiScaleDeformableAttention):
            module.init_weights()
    nn.init.normal_(detector.level_embed)
    for layer in (detector.query_embedding, detector.memory_trans_fc):
        nn.init.xavier_uniform_(layer.weight)
