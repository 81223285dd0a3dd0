"""Deviations of the original LLMDet that its published numbers contain, off unless asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quirks:
    """Switches that reproduce the original program; the default of each is the corrected maths.

    Set them in a config as ``model=dict(quirks=dict(...))``.
    """

    #: Padded text tokens take part in the image stream of the fusion layers, so that an image's
    #: memory depends on the length of its neighbours' prompts.
    fusion_attends_to_padded_text: bool = False
    #: The sub-sentence mask of the encoder's text layers is repeated head-major while attention
    #: reads it batch-major: sample i sees the mask of sample (i * heads + h) % B.
    head_major_text_mask: bool = False
    #: The decoder encodes where its boxes lie on the padded batch instead of in the image, so that
    #: a neighbour's size reaches the queries.
    query_positions_on_padded_batch: bool = False
    #: Pixels of padding compete for the two-stage selection with the constant score that all
    #: blanked pixels get, so that a neighbour's size reaches the choice of queries.
    propose_padding: bool = False
    #: Images of different size are padded to the largest of the batch before the backbone also
    #: at inference, so that a neighbour's size reaches windows and group norms.
    pad_before_backbone: bool = False
    #: Frozen backbones keep drop path and frozen text encoders keep dropout while training.
    dropout_in_frozen_parts: bool = False
    #: Region captions read the hidden states without skipping the denoising queries in front.
    region_queries_ignore_denoising: bool = False
    #: Image-level cross-attention reads xyxy grid cells as if they were cxcywh boxes.
    image_cross_attention_xyxy: bool = False
