"""Detectors: what a runner trains and a demo calls."""

from llmdet.models.detectors.grounding_dino import GroundingDINO

__all__ = ["GroundingDINO"]
