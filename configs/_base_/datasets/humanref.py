"""HumanRef: people by any words. Candidates are the annotated boxes of all people, as published.

``test_dataloader.dataset.candidates=FILE`` takes those of a detector, a prediction file by the ids
of the expressions: figures of the two are not comparable, and reports name which it was.
"""

_base_ = "../question_loader.py"

data_root = "data/humanref/"
annotations = "annotations.jsonl"

test_dataloader = dict(
    dataset=dict(
        type="HumanRefDataset",
        data_root=data_root,
        ann_file=annotations,
        data_prefix=dict(img="images/"),
        candidates=None,
        pipeline=_base_.question_pipeline,
    ),
)
test_evaluator = dict(type="HumanRefMetric", ann_file=data_root + annotations)
