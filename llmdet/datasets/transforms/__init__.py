"""Transforms that mmdet does not have, and what every test pipeline is made of.

Names that are known here are found without the import of all data sets of mmdet, which takes half
a second.
"""

from llmdet.datasets.transforms.any_object import AnyObjectPrompt
from llmdet.datasets.transforms.conversations import TokenizeConversations
from llmdet.datasets.transforms.expression_sampling import SampleExpressions
from llmdet.datasets.transforms.loading import LoadImageFromFile
from llmdet.datasets.transforms.objects import AskForObjects, MixCandidates
from llmdet.datasets.transforms.packing import PackGroundingInputs
from llmdet.datasets.transforms.resizing import FixScaleResize, Resize
from llmdet.datasets.transforms.text_sampling import RandomSamplingNegPos, RandomSamplingNegPos2
from llmdet.datasets.transforms.views import MakeViews, PackViews

__all__ = [
    "AnyObjectPrompt",
    "AskForObjects",
    "FixScaleResize",
    "LoadImageFromFile",
    "MakeViews",
    "MixCandidates",
    "PackGroundingInputs",
    "PackViews",
    "RandomSamplingNegPos",
    "RandomSamplingNegPos2",
    "Resize",
    "SampleExpressions",
    "TokenizeConversations",
]
