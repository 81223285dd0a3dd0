"""OmniLabel: AP over category names and free-form descriptions."""

_base_ = "../grounding_dino_swin_t.py"

data_root = "data/omnilabel/"
ann_file = "dataset_all_val.json"

model = dict(lmm=None, test_cfg=dict(limit_per="image", chunked_size=-1))

val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="OmniLabelDataset",
        data_root=data_root,
        ann_file=ann_file,
        data_prefix=dict(img="images/"),
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type="OmniLabelMetric", ann_file=data_root + ann_file)
test_evaluator = val_evaluator
