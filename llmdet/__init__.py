"""LLMDet: open-vocabulary detection taught by a language model."""

__version__ = "0.1.0"
