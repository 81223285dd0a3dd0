"""The tiny detector on the toy set, taught by a tiny language model as well."""

_base_ = ["./detector.py", "../_base_/models/lmm_tiny.py"]

model = dict(
    type="LLMDet",
    lmm=_base_.lmm,
    image_captioner=_base_.image_captioner,
    region_captioner=_base_.region_captioner,
)
