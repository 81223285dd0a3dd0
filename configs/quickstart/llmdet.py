"""The tiny detector on the toy set, taught by a tiny language model as well."""

_base_ = ["./detector.py", "../_base_/models/lmm_tiny.py"]

# A larger weight beside that of phrases costs phrases of unseen combinations.
image_captioner = _base_.image_captioner
image_captioner["loss_weight"] = 0.5
model = dict(
    type="LLMDet",
    lmm=_base_.lmm,
    image_captioner=image_captioner,
    region_captioner=_base_.region_captioner,
)
