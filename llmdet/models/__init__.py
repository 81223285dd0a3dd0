"""Models of LLMDet.

The letters of all shape comments: B images, Q queries, M denoising queries, C channels,
L text tokens, S flattened pixels of all levels, K classes or phrases of a prompt, N boxes,
P sampling points, D decoder layers; of language models R conversations or regions, T tokens,
H channels, G generated tokens, k tokens of a region.
"""

from llmdet.models.backbones import SwinTransformer
from llmdet.models.detectors import GroundingDINO, ProposalDINO
from llmdet.models.heads import GroundingDINOHead
from llmdet.models.language import LanguageModel
from llmdet.models.outputs import Mask, MaskDecoder, ObjectIndex, Text
from llmdet.models.regions import (
    AllQueries,
    AverageGrid,
    BestQueries,
    GridCells,
    MaskPool,
    MLPConnector,
    ObjectQueries,
    RoIAlign,
    VisualConnector,
)
from llmdet.models.systems.llmdet import LLMDet
from llmdet.models.systems.region_lmm import RegionLMM
from llmdet.models.text.bert import BertModel
from llmdet.models.vision.convnext import ConvNextTower
from llmdet.models.vision.detector_memory import DetectorMemory
from llmdet.models.vision.dual_tower import DualTower
from llmdet.models.vision.preprocessor import ViewPreprocessor
from llmdet.models.vision.refinement import RefinedTower
from llmdet.models.vision.sam import SamTower
from llmdet.models.vision.transformers_tower import TransformersTower

__all__ = [
    "AllQueries",
    "AverageGrid",
    "BertModel",
    "BestQueries",
    "ConvNextTower",
    "DetectorMemory",
    "DualTower",
    "GridCells",
    "GroundingDINO",
    "GroundingDINOHead",
    "LLMDet",
    "LanguageModel",
    "MLPConnector",
    "Mask",
    "MaskDecoder",
    "MaskPool",
    "ObjectIndex",
    "ObjectQueries",
    "ProposalDINO",
    "RefinedTower",
    "RegionLMM",
    "RoIAlign",
    "SamTower",
    "SwinTransformer",
    "Text",
    "TransformersTower",
    "ViewPreprocessor",
    "VisualConnector",
]
