"""What COCO 2017's annotated objects are: every box of the validation set is a question."""

_base_ = "../question_loader.py"

data_root = "data/coco/"
annotations = "annotations/instances_val2017.json"

test_dataloader = dict(
    batch_size=16,
    dataset=dict(
        type="RegionClassificationDataset",
        data_root=data_root,
        ann_file=annotations,
        data_prefix=dict(img="val2017/"),
        # Both change the figure; SpatialRGPT's program has "masks" and True.
        regions="boxes",
        window=False,
        pipeline=_base_.question_pipeline,
    ),
)
test_evaluator = dict(type="CocoClassificationMetric", ann_file=data_root + annotations)
