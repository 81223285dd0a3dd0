"""Names of PACO's annotated objects and parts, by the released ChatRex-7B."""

_base_ = ["./infer_7b.py", "../_base_/datasets/paco_names.py", "../_base_/default_runtime.py"]

model = dict(talk=dict(max_new_tokens=32))
