"""What a language model's answer becomes: text, indices of objects or masks."""

from llmdet.models.outputs.mask import Mask
from llmdet.models.outputs.mask_decoder import MaskDecoder
from llmdet.models.outputs.object_index import ObjectIndex
from llmdet.models.outputs.several import SeveralOutputs
from llmdet.models.outputs.text import Text

__all__ = ["Mask", "MaskDecoder", "ObjectIndex", "SeveralOutputs", "Text"]
