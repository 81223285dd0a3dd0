"""Detectors: what a runner trains and a demo calls."""

from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.detectors.llmdet import LLMDet

__all__ = ["GroundingDINO", "LLMDet"]
