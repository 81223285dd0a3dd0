"""The grounding head: contrastive logits, boxes, matching, losses and detections."""

from llmdet.models.heads.grounding_head import GroundingDINOHead

__all__ = ["GroundingDINOHead"]
