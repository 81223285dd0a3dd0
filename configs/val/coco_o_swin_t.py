"""COCO-O: COCO's classes in six other domains, and effective robustness.

Effective robustness needs the model's AP on COCO: --cfg-options test_evaluator.coco_ap=0.55
"""

_base_ = "../grounding_dino_swin_t.py"

data_root = "data/coco_o/"
domains = ("cartoon", "handmake", "painting", "sketch", "tattoo", "weather")

model = dict(lmm=None, test_cfg=dict(limit_per="image", chunked_size=-1))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="BenchmarkSets",
        sets={
            domain: dict(
                type="CocoDataset",
                data_root=data_root + domain,
                ann_file="annotations/instances_val2017.json",
                data_prefix=dict(img="val2017/"),
                test_mode=True,
                pipeline=_base_.test_pipeline,
                return_classes=True,
            )
            for domain in domains
        },
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type="BenchmarkEvaluator",
    mean_of="bbox_mAP",
    metrics={
        domain: dict(
            type="CocoMetric",
            ann_file=data_root + domain + "/annotations/instances_val2017.json",
        )
        for domain in domains
    },
)
test_evaluator = val_evaluator
