"""The language model that teaches, with image tokens of the stride-32 map only: 729 tokens."""

_base_ = "./lmm_p4p5.py"

image_captioner = dict(encoder=dict(grids=((-2, 27),)), max_length=1200)
