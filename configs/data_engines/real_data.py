# Expressions from nothing: one vision-language model in this process writes and mends them.
_base_ = ["real_lod.py"]
models = dict(captioner={{_base_.model}}, diversifier={{_base_.model}})
