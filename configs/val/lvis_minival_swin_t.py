"""Fixed AP of Swin-T on LVIS minival (4,809 images), zero-shot, with 40 classes a prompt as published."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(lmm=None)
