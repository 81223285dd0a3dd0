"""What an output adds to a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from llmdet.models.language.dialogue import DialogueBatch
from llmdet.models.language.language_model import Generated, LanguageModel


class Output(nn.Module):
    """Base of outputs; register one in ``MODELS`` to name it in a config."""

    #: Tokens that the language model gets for it.
    added_tokens: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def write(text: str) -> str:
        """The text of a learned turn as the language model is to say it; called in workers."""
        return text

    def loss(
        self, lmm: LanguageModel, dialogue: DialogueBatch, features: Mapping[str, Tensor]
    ) -> Tensor:
        """What it costs to say these conversations, a scalar; arguments as in ``lmm.loss``."""
        return lmm.loss(dialogue, features)

    def read(self, generated: Generated, tokenizer: Any) -> list[Any]:
        """The answer of each conversation; ``tokenizer`` is the language model's."""
        raise NotImplementedError
