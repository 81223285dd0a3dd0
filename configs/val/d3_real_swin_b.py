"""D3 by Real-Model with Swin-B, one description a prompt."""

_base_ = ["./d3_real_swin_t.py", "../_base_/models/backbone_swin_b.py"]

model = _base_.swin_b
