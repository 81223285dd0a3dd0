"""LLMDet: a detector, the captioners that teach it, and region attention."""

from llmdet.models.systems.llmdet.model import LLMDet

__all__ = ["LLMDet"]
