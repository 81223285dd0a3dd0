"""LLMDet with Swin-B on GroundingCap-1M, evaluated by fixed AP on LVIS minival."""

_base_ = [
    "./_base_/models/grounding_dino_swin_b.py",
    "./_base_/models/lmm_p4p5.py",
    "./_base_/datasets/groundingcap_1m.py",
    "./_base_/datasets/lvis.py",
    "./_base_/schedules/llmdet_150k.py",
    "./_base_/default_runtime.py",
]

model = dict(
    type="LLMDet",
    freeze_backbone=True,
    lmm=_base_.lmm,
    image_captioner=_base_.image_captioner,
    region_captioner=_base_.region_captioner,
    connector=_base_.connector,
    test_cfg=_base_.test_protocol,
)
load_from = "checkpoints/mm_grounding_dino_swin_b.pth"
load_missing = ["lmm", "image_captioner", "region_captioner"]
