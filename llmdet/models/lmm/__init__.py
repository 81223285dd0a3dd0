"""The language model that teaches: wrapper, connectors, region attention, captioners."""

from llmdet.models.lmm.image_captioner import ImageCaptioner
from llmdet.models.lmm.language_model import LanguageModel
from llmdet.models.lmm.region_captioner import RegionCaptioner

__all__ = ["ImageCaptioner", "LanguageModel", "RegionCaptioner"]
