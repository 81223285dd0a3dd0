# GranD with one model in this process for all that is said; detector, SAM and depth model are named
# beside it.
_base_ = ["real_lod.py"]
models = dict(
    captioner={{_base_.model}},
    describer={{_base_.model}},
    relater={{_base_.model}},
    writer={{_base_.model}},
)
