"""LLMDet with Swin-T on GroundingCap-1M, evaluated by fixed AP on LVIS minival."""

_base_ = [
    "./_base_/models/grounding_dino_swin_t.py",
    "./_base_/datasets/groundingcap_1m.py",
    "./_base_/datasets/lvis.py",
    "./_base_/schedules/llmdet_150k.py",
    "./_base_/default_runtime.py",
]

# Backbone and neck stay as MM-Grounding-DINO trained them.
model = dict(freeze_backbone=True)
load_from = "checkpoints/mm_grounding_dino_swin_t.pth"
load_strict = False
