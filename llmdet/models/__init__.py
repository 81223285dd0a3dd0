"""Models of LLMDet.

The letters of all shape comments: B images, Q queries, M denoising queries, C channels,
L text tokens, S flattened pixels of all levels, K classes or phrases of a prompt, N boxes,
P sampling points, D decoder layers.
"""

from llmdet.models.backbones import SwinTransformer
from llmdet.models.detectors import GroundingDINO, LLMDet
from llmdet.models.heads import GroundingDINOHead
from llmdet.models.lmm import LanguageModel
from llmdet.models.text.bert import BertModel

__all__ = [
    "BertModel",
    "GroundingDINO",
    "GroundingDINOHead",
    "LLMDet",
    "LanguageModel",
    "SwinTransformer",
]
