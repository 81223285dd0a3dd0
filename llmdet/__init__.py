"""LLMDet: open-vocabulary detection taught by a language model."""

from llmdet.ops import mmcv_finder
from llmdet.utils import quiet_imports

__version__ = "0.1.0"

mmcv_finder.install()
quiet_imports.install()
