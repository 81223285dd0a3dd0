"""Names of LVIS's annotated objects, by the released ChatRex-7B."""

_base_ = ["./infer_7b.py", "../_base_/datasets/lvis_names.py", "../_base_/default_runtime.py"]

model = dict(talk=dict(max_new_tokens=32))
