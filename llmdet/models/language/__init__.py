"""Causal language models that read features in the slots of conversations, and speak."""

from llmdet.models.language.language_model import LanguageModel

__all__ = ["LanguageModel"]
