"""Flickr30k Entities phrase grounding: recall@1, 5, 10 of val and test, in MDETR's files."""

_base_ = "../grounding_dino_swin_t.py"

data_root = "data/flickr30k_entities/"
splits = ("val", "test")

model = dict(lmm=None, test_cfg=dict(limit_per="image", chunked_size=-1))

val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="BenchmarkSets",
        sets={
            split: dict(
                type="Flickr30kDataset",
                data_root=data_root,
                ann_file="final_flickr_separateGT_" + split + ".json",
                data_prefix=dict(img="flickr30k_images/"),
                test_mode=True,
                pipeline=_base_.test_pipeline,
            )
            for split in splits
        },
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type="BenchmarkEvaluator",
    metrics={split: dict(type="Flickr30kMetric") for split in splits},
)
test_evaluator = val_evaluator
