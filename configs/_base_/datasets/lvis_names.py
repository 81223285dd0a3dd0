"""What LVIS's annotated objects are, in any words.

``text_encoder`` is a sentence encoder, for semantic similarity; None compares words alone.
"""

_base_ = "../question_loader.py"

data_root = "data/coco/"
annotations = "annotations/lvis_v1_val.json"

test_dataloader = dict(
    dataset=dict(
        type="RegionNamingDataset",
        data_root=data_root,
        ann_file=annotations,
        data_prefix=dict(img=""),
        pipeline=_base_.question_pipeline,
    ),
)
test_evaluator = dict(
    type="RegionClassificationMetric",
    ann_file=data_root + annotations,
    text_encoder="checkpoints/all-MiniLM-L6-v2",
)
