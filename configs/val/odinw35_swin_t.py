"""ODinW35: COCO AP of each of 35 small data sets, and their mean."""

_base_ = "./odinw13_swin_t.py"

from llmdet.evaluation.odinw import dataset_configs, metric_configs

val_dataloader = dict(
    dataset=dict(
        sets=dict(
            _delete_=True, **dataset_configs("odinw35", _base_.data_root, _base_.test_pipeline)
        )
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(metrics=dict(_delete_=True, **metric_configs("odinw35", _base_.data_root)))
test_evaluator = val_evaluator
