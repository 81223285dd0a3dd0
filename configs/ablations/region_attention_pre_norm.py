"""Region attention with its norm inside the residual branch: it starts by changing nothing."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(lmm=dict(region_attention=dict(norm="pre")))
