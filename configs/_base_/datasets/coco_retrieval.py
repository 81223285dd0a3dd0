"""COCO 2017 in retrieval form: the names of an image's objects are given, boxes are to be found.

Candidates are a prediction file by the ids of images, such as
``bash dist_test.sh configs/upn/upn_swin_l.py ... --out`` writes of the same annotations. As in the
published figures the 100 best are offered that score above 0.3, their scores are those of what is
found, and what is absent is never asked for (``names="all"`` asks for every class).
"""

_base_ = "../question_loader.py"

data_root = "data/coco/"
annotations = "annotations/instances_val2017.json"

test_dataloader = dict(
    dataset=dict(
        type="ClassRetrievalDataset",
        data_root=data_root,
        ann_file=annotations,
        data_prefix=dict(img="val2017/"),
        candidates="candidates/instances_val2017.jsonl",
        names="image",
        max_candidates=100,
        score_threshold=0.3,
        scores="candidate",
        pipeline=_base_.question_pipeline,
    ),
)
test_evaluator = [
    dict(type="CocoMetric", ann_file=data_root + annotations),
    dict(type="RetrievalMetric", ann_file=data_root + annotations),
]
