"""No learned token between the two maps of image tokens."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(image_captioner=dict(separator=False))
