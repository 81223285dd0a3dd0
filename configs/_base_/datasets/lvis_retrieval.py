"""LVIS minival in retrieval form, as ``coco_retrieval.py``."""

_base_ = "./coco_retrieval.py"

data_root = "data/coco/"
annotations = "annotations/lvis_v1_minival_inserted_image_name.json"

test_dataloader = dict(
    dataset=dict(
        ann_file=annotations,
        data_prefix=dict(img=""),
        candidates="candidates/lvis_v1_minival.jsonl",
    )
)
test_evaluator = [
    dict(type="LVISMetric", ann_file=data_root + annotations),
    dict(type="RetrievalMetric", ann_file=data_root + annotations),
]
