"""Grounding DINO with Swin-B (pre-trained at 384 pixels)."""

_base_ = ["./grounding_dino_swin_t.py", "./backbone_swin_b.py"]

model = _base_.swin_b
