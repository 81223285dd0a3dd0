"""Regions are named from their object query alone: no cross-attention in the language model."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(lmm=dict(region_attention=None))
