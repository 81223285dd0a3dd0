"""The language model learns nothing but where to look."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(lmm=dict(lora=None))
