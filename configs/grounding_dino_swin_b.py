"""LLMDet with Swin-B on GroundingCap-1M, evaluated by fixed AP on LVIS minival."""

_base_ = [
    "./_base_/models/grounding_dino_swin_b.py",
    "./_base_/datasets/groundingcap_1m.py",
    "./_base_/datasets/lvis.py",
    "./_base_/schedules/llmdet_150k.py",
    "./_base_/default_runtime.py",
]

model = dict(freeze_backbone=True)
load_from = "checkpoints/mm_grounding_dino_swin_b.pth"
load_strict = False
