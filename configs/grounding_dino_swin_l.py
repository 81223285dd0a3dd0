"""LLMDet with Swin-L on GroundingCap-1M, evaluated by fixed AP on LVIS minival."""

_base_ = [
    "./_base_/models/grounding_dino_swin_l.py",
    "./_base_/models/lmm_p5.py",
    "./_base_/datasets/groundingcap_1m.py",
    "./_base_/datasets/lvis.py",
    "./_base_/schedules/llmdet_150k.py",
    "./_base_/default_runtime.py",
]

lmm = _base_.lmm
lmm["lora"]["r"] = 64  # with alpha 256: the product weighs 4, in the other models 2
model = dict(
    type="LLMDet",
    freeze_backbone=True,
    lmm=lmm,
    image_captioner=_base_.image_captioner,
    region_captioner=_base_.region_captioner,
    connector=_base_.connector,
    test_cfg=_base_.test_protocol,
)
load_from = "checkpoints/mm_grounding_dino_swin_l.pth"
load_missing = ["lmm", "image_captioner", "region_captioner"]

test_pipeline = _base_.test_pipeline
test_pipeline[1]["scale"] = (1000, 1560)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
