"""The region loss on the last three decoder layers instead of the last."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(region_captioner=dict(decoder_layers=3))
