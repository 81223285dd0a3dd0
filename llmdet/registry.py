"""Registries of LLMDet: children of mmdet's, so that every mmdet part can be named in a config.

Configs set ``default_scope = 'llmdet'``; a name is looked up here first and in mmdet next, whose
parts are imported only then.
"""

from __future__ import annotations

from typing import Any

from mmdet import registry as mmdet
from mmengine.registry import INFERENCERS as MMENGINE_INFERENCERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import Registry

from llmdet.utils import inert_files  # noqa: F401  before mmengine reads any file


class _Child(Registry):
    """A registry that has its parent register its parts before it looks for one there.

    mmengine's would find there what others happened to import, and mmcv's ``Resize`` in place of
    mmdet's.
    """

    def get(self, key: str) -> Any:
        """The part of this name, None where neither we nor mmdet nor mmengine has one."""
        self.import_from_location()
        if key not in self.module_dict and self.parent is not None:
            self.parent.import_from_location()
        return super().get(key)


def _child(parent: Registry, *locations: str) -> Registry:
    """A registry below ``parent`` whose parts are registered by importing ``locations``."""
    return _Child(parent.name, parent=parent, scope="llmdet", locations=list(locations))


MODELS = _child(mmdet.MODELS, "llmdet.models")
TASK_UTILS = _child(mmdet.TASK_UTILS, "llmdet.models")
DATASETS = _child(
    mmdet.DATASETS,
    "llmdet.datasets.odvg",
    "llmdet.datasets.coco_dataset",
    "llmdet.datasets.lvis",
    "llmdet.datasets.benchmarks",
    "llmdet.datasets.caption_questions",
    "llmdet.datasets.questions",
    "llmdet.datasets.retrieval_sets",
)
DATA_SAMPLERS = _child(mmdet.DATA_SAMPLERS, "llmdet.datasets.samplers")
TRANSFORMS = _child(mmdet.TRANSFORMS, "llmdet.datasets.transforms")
METRICS = _child(mmdet.METRICS, "llmdet.evaluation.metrics")
EVALUATOR = _child(mmdet.EVALUATOR, "llmdet.evaluation.metrics")
HOOKS = _child(mmdet.HOOKS, "llmdet.engine", "llmdet.visualization")
RUNNERS = _child(mmdet.RUNNERS, "llmdet.engine")
LOG_PROCESSORS = _child(mmdet.LOG_PROCESSORS, "llmdet.engine")
LOOPS = _child(mmdet.LOOPS, "llmdet.engine")
# transformers' Adafactor, which mmengine would register at every start; see utils/import_hooks.py.
OPTIMIZERS = _child(mmdet.OPTIMIZERS, "llmdet.engine.transformers_optimizers")
OPTIM_WRAPPERS = _child(mmdet.OPTIM_WRAPPERS, "llmdet.engine")
OPTIM_WRAPPER_CONSTRUCTORS = _child(mmdet.OPTIM_WRAPPER_CONSTRUCTORS, "llmdet.engine")
VISUALIZERS = _child(mmdet.VISUALIZERS, "llmdet.visualization")
STRATEGIES = _child(MMENGINE_STRATEGIES, "llmdet.engine")
INFERENCERS = _child(MMENGINE_INFERENCERS, "llmdet.apis")

# Kinds of which we have no parts of our own: mmengine warns of every kind that the scope lacks.
for _parent in (
    mmdet.MODEL_WRAPPERS,
    mmdet.PARAM_SCHEDULERS,
    mmdet.RUNNER_CONSTRUCTORS,
    mmdet.VISBACKENDS,
    mmdet.WEIGHT_INITIALIZERS,
):
    _child(_parent, "llmdet.engine")
