"""COCO's objects by name among a detector's boxes, with the released ChatRex-7B."""

_base_ = ["./infer_7b.py", "../_base_/datasets/coco_retrieval.py", "../_base_/default_runtime.py"]

model = dict(talk=dict(max_new_tokens=512))
