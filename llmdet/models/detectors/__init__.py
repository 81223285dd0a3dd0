"""Detectors: what a runner trains and a demo calls."""

from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.detectors.proposal_dino import ProposalDINO

__all__ = ["GroundingDINO", "ProposalDINO"]
