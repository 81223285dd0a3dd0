"""LLMDet: open-vocabulary detection taught by a language model."""

from llmdet.ops import mmcv_finder

__version__ = "0.1.0"

mmcv_finder.install()
