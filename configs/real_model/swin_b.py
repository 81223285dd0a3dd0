"""Real-Model with Swin-B."""

_base_ = ["./swin_t.py", "../_base_/models/backbone_swin_b.py"]

model = _base_.swin_b
load_from = "checkpoints/mm_grounding_dino_swin_b.pth"
