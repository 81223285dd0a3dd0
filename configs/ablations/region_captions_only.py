"""No image caption loss."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(image_captioner=None)
