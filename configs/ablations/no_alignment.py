"""Both connectors start from random weights, without the alignment stage."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(connector=None)
