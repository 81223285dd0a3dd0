"""Image tokens, too, go through the language model's region attention."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(image_captioner=dict(look=True))
