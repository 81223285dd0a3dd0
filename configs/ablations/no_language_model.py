"""The same data and schedule without a language model."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(lmm=None, image_captioner=None, region_captioner=None, connector=None)
