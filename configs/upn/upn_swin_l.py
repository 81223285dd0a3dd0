"""Universal proposals with Swin-L from several sets without names, measured by recall on COCO.

Training is not published: schedule and rates are those of LLMDet's detector.
"""

_base_ = [
    "../_base_/models/proposal_dino_swin_l.py",
    "../_base_/datasets/proposals.py",
    "../_base_/schedules/llmdet_150k.py",
    "../_base_/default_runtime.py",
]
