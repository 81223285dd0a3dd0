"""The runtime of all runs, for small data sets: what is validated is kept, and the best of it."""

_base_ = "./default_runtime.py"

default_hooks = dict(checkpoint=dict(interval="validation", save_best="auto", max_keep_ckpts=3))
