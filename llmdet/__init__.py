"""LLMDet: open-vocabulary detection taught by a language model."""

from llmdet.ops import mmcv_finder
from llmdet.utils import import_hooks

__version__ = "0.1.0"

mmcv_finder.install()
import_hooks.install()
