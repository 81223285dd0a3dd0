"""Answers as text."""

from __future__ import annotations

from typing import Any

from llmdet.models.language.language_model import Generated
from llmdet.registry import MODELS

from .base import Output, Scene


@MODELS.register_module()
class Text(Output):
    """The answer is the text itself, learned by cross-entropy."""

    def read(self, generated: Generated, tokenizer: Any, scene: Scene | None = None) -> list[str]:
        """One text for each conversation."""
        return generated.texts
