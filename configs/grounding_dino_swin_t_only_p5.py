"""LLMDet with Swin-T and image tokens of the stride-32 map only."""

_base_ = "./grounding_dino_swin_t.py"

model = dict(image_captioner=dict(encoder=dict(grids=((-2, 27),)), max_length=1200))
