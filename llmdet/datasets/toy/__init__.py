"""The generated toy set: coloured shapes with true boxes, phrases and captions.

``python -m llmdet.datasets.toy OUT`` writes images and annotations in every format that LLMDet
reads. Some colour-shape combinations never appear in training, so that open-vocabulary
detection can be measured on them.
"""

from llmdet.datasets.toy.vocabulary import CLASS_NAMES, HELD_OUT_NAMES, SEEN_NAMES
from llmdet.datasets.toy.writer import ToySettings, generate

__all__ = ["CLASS_NAMES", "HELD_OUT_NAMES", "SEEN_NAMES", "ToySettings", "generate"]
