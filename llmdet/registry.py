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
    locations=[
        "llmdet.datasets.odvg",
        "llmdet.datasets.coco_dataset",
        "llmdet.datasets.lvis",
        "llmdet.datasets.benchmarks",
    ],
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
METRICS = Registry(
    "metric", parent=mmdet.METRICS, scope="llmdet", locations=["llmdet.evaluation.metrics"]
)
EVALUATOR = Registry(
    "evaluator", parent=mmdet.EVALUATOR, scope="llmdet", locations=["llmdet.evaluation.metrics"]
)
HOOKS = Registry(
    "hook",
    parent=mmdet.HOOKS,
    scope="llmdet",
    locations=["llmdet.engine", "llmdet.visualization"],
)
RUNNERS = Registry("runner", parent=mmdet.RUNNERS, scope="llmdet", locations=["llmdet.engine"])
LOOPS = Registry("loop", parent=mmdet.LOOPS, scope="llmdet", locations=["llmdet.engine"])
OPTIM_WRAPPERS = Registry(
    "optim_wrapper", parent=mmdet.OPTIM_WRAPPERS, scope="llmdet", locations=["llmdet.engine"]
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=mmdet.OPTIM_WRAPPER_CONSTRUCTORS,
    scope="llmdet",
    locations=["llmdet.engine"],
)
VISUALIZERS = Registry(
    "visualizer", parent=mmdet.VISUALIZERS, scope="llmdet", locations=["llmdet.visualization"]
)
INFERENCERS = Registry(
    "inferencer", parent=MMENGINE_INFERENCERS, scope="llmdet", locations=["llmdet.apis"]
)

# Kinds of which we have no parts of our own: mmengine warns of every kind that the scope lacks.
for _parent in (
    mmdet.LOG_PROCESSORS,
    mmdet.MODEL_WRAPPERS,
    mmdet.OPTIMIZERS,
    mmdet.PARAM_SCHEDULERS,
    mmdet.RUNNER_CONSTRUCTORS,
    mmdet.VISBACKENDS,
    mmdet.WEIGHT_INITIALIZERS,
):
    Registry(_parent.name, parent=_parent, scope="llmdet", locations=["llmdet.engine"])
