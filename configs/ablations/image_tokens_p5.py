"""Image tokens of the stride-32 map only."""

_base_ = "../grounding_dino_swin_t_only_p5.py"
