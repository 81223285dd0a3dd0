"""Stage one: the image connector alone learns to speak to the language model.

Detector and language model do not change. The other configs start from the result by
``connector``.
"""

_base_ = [
    "./_base_/models/grounding_dino_swin_t.py",
    "./_base_/models/lmm_p4p5.py",
    "./_base_/datasets/groundingcap_1m.py",
    "./_base_/schedules/alignment.py",
    "./_base_/default_runtime.py",
]

lmm = _base_.lmm
lmm.update(lora=None, region_attention=None)
model = dict(
    type="LLMDet",
    freeze_detector=True,
    lmm=lmm,
    image_captioner=_base_.image_captioner,
)
load_from = "checkpoints/mm_grounding_dino_swin_t.pth"
load_missing = ["lmm", "image_captioner"]

train_dataloader = dict(batch_size=8, dataset=dict(datasets=[_base_.llava_cap_part]))
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=1))
log_processor = dict(by_epoch=True)
