"""D3 (described object detection): AP of full, presence and absence descriptions in one run."""

_base_ = "../grounding_dino_swin_t.py"

data_root = "data/d3/"

model = dict(lmm=None, test_cfg=dict(limit_per="image", chunked_size=-1))

val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="D3Dataset",
        data_root=data_root,
        ann_file="d3_json/d3_full_annotations.json",
        data_prefix=dict(img="d3_images/", anno="d3_pkl"),
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(
        type="D3Metric",
        ann_file=data_root + "d3_json/d3_" + split + "_annotations.json",
        prefix=split,
    )
    for split in ("full", "pres", "abs")
]
test_evaluator = val_evaluator
