"""Registries of LLMDet: children of mmdet's, so that every mmdet part can be named in a config.

Configs set ``default_scope = 'llmdet'``; a name is looked up here first and in mmdet next.
"""

from mmdet import registry as mmdet
from mmengine.registry import INFERENCERS as MMENGINE_INFERENCERS
from mmengine.registry import Registry

MODELS = Registry("model", parent=mmdet.MODELS, scope="llmdet", locations=["llmdet.models"])
TASK_UTILS = Registry(
    "task util", parent=mmdet.TASK_UTILS, scope="llmdet", locations=["llmdet.models"]
)
DATASETS = Registry(
    "dataset",
    parent=mmdet.DATASETS,
    scope="llmdet",
    locations=["llmdet.datasets.odvg", "llmdet.datasets.coco", "llmdet.datasets.lvis"],
)
DATA_SAMPLERS = Registry(
    "data sampler",
    parent=mmdet.DATA_SAMPLERS,
    scope="llmdet",
    locations=["llmdet.datasets.samplers"],
)
TRANSFORMS = Registry(
    "transform",
    parent=mmdet.TRANSFORMS,
    scope="llmdet",
    locations=["llmdet.datasets.transforms"],
)
METRICS = Registry("metric", parent=mmdet.METRICS, scope="llmdet", locations=["llmdet.evaluation.metrics"])
EVALUATOR = Registry(
    "evaluator", parent=mmdet.EVALUATOR, scope="llmdet", locations=["llmdet.evaluation.metrics"]
)
HOOKS = Registry("hook", parent=mmdet.HOOKS, scope="llmdet", locations=["llmdet.engine"])
VISUALIZERS = Registry(
    "visualizer", parent=mmdet.VISUALIZERS, scope="llmdet", locations=["llmdet.visualization"]
)
INFERENCERS = Registry(
    "inferencer", parent=MMENGINE_INFERENCERS, scope="llmdet", locations=["llmdet.apis"]
)
