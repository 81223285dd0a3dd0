"""Write captions for a data set with a vision-language model of the user's choice."""

from llmdet.datasets.captioning.backends import Captioner, Question
from llmdet.datasets.captioning.generate import CaptionSettings, caption_dataset

__all__ = ["CaptionSettings", "Captioner", "Question", "caption_dataset"]
