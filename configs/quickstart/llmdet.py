"""The tiny detector on the toy set, taught by a tiny language model as well."""

_base_ = ["./detector.py", "../_base_/models/lmm_tiny.py"]

# A language model of random weights has much to learn first; its own maps learn no slower with a
# small weight, and the detector is not pulled about.
image_captioner = _base_.image_captioner
image_captioner["loss_weight"] = 0.5
region_captioner = _base_.region_captioner
region_captioner["loss_weight"] = 0.1
model = dict(
    type="LLMDet",
    lmm=_base_.lmm,
    image_captioner=image_captioner,
    region_captioner=region_captioner,
)
