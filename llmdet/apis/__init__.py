"""The inference interface that demo, notebooks and export call.

The inferencer is imported when it is first used: whoever only checks inputs or prompts
does not wait for mmdet.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmdet.apis.inferencer import LLMDetInferencer

__all__ = ["LLMDetInferencer"]


def __getattr__(name: str) -> Any:
    if name == "LLMDetInferencer":
        from llmdet.apis.inferencer import LLMDetInferencer

        return LLMDetInferencer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
