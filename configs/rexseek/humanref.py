"""HumanRef with the released RexSeek-3B."""

_base_ = ["./infer_3b.py", "../_base_/datasets/humanref.py", "../_base_/default_runtime.py"]

model = dict(talk=dict(max_new_tokens=100))
