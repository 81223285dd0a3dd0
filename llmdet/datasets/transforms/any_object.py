"""The prompt of images whose boxes have no names, for detectors that propose."""

from __future__ import annotations

from typing import Any

from mmcv.transforms import BaseTransform

from llmdet.prompts.types import AnyObject
from llmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class AnyObjectPrompt(BaseTransform):
    """Ask for whatever is an object, instead of for the classes of the data set.

    Added keys: prompt.

    Args:
        granularity: what the data set annotates as an object, "fine" or "coarse".

    Raises:
        ConfigError: there is no such granularity.
    """

    def __init__(self, granularity: str) -> None:
        self.prompt = AnyObject(granularity=granularity)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Set the prompt of one sample."""
        return {**results, "prompt": self.prompt}
