# The same with a vision model and a language model behind endpoints.
_base_ = ["real_lod_endpoints.py"]
models = dict(
    captioner={{_base_.models.describer}},
    describer={{_base_.models.describer}},
    relater={{_base_.models.describer}},
    writer={{_base_.models.planner}},
)
