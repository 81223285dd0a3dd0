"""ODinW13: COCO AP of each of 13 small data sets, and their mean."""

_base_ = "../grounding_dino_swin_t.py"

from llmdet.evaluation.odinw import dataset_configs, metric_configs

data_root = "data/odinw/"

model = dict(lmm=None, test_cfg=dict(limit_per="image", chunked_size=-1))
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="BenchmarkSets",
        sets=dataset_configs("odinw13", data_root, _base_.test_pipeline),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type="BenchmarkEvaluator",
    mean_of="bbox_mAP",
    metrics=metric_configs("odinw13", data_root),
)
test_evaluator = val_evaluator
