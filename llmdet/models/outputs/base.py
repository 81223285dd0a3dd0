"""What an output adds to a language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from llmdet.models.language.dialogue import DialogueBatch
from llmdet.models.language.language_model import Generated, LanguageModel
from llmdet.prompts.conversation import Conversation, with_image


def write_as_it_is(text: str) -> str:
    """The text of a learned turn, unchanged."""
    return text


class Output(nn.Module):
    """Base of outputs; register one in ``MODELS`` to name it in a config."""

    #: Tokens that the language model gets for it.
    added_tokens: tuple[str, ...] = ()
    #: Makes of a learned turn's text what the language model is to say. Workers are sent it, and
    #: what they made with it is compared with it by value.
    write: Callable[[str], str] = staticmethod(write_as_it_is)

    def introduce(self, conversation: Conversation, regions: int) -> Conversation:
        """The conversation with what the model reads in front of its first question.

        Args:
            conversation: about an image, with marks of its regions.
            regions: how many there are.
        """
        return with_image(conversation)

    def loss(
        self, lmm: LanguageModel, dialogue: DialogueBatch, features: Mapping[str, Tensor]
    ) -> Tensor:
        """What it costs to say these conversations, a scalar; arguments as in ``lmm.loss``."""
        return lmm.loss(dialogue, features)

    def constraints(
        self, lmm: LanguageModel, dialogue: DialogueBatch, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Options of transformers' ``generate`` that keep answers to what the output can read.

        Args:
            lmm: is going to answer.
            dialogue: conversations opened for their answer.
            options: those that are given already; what is returned replaces them.
        """
        return {}

    def read(self, generated: Generated, tokenizer: Any) -> list[Any]:
        """The answer of each conversation; ``tokenizer`` is the language model's."""
        raise NotImplementedError
