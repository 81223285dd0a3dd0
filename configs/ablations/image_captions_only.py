"""No region loss."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(region_captioner=None, lmm=dict(region_attention=None))
