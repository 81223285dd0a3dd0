"""What an output adds to a language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from llmdet.datasets.sample import grounding_of
from llmdet.errors import ConfigError
from llmdet.models.language.dialogue import DialogueBatch
from llmdet.models.language.language_model import Generated, LanguageModel
from llmdet.models.vision.views import TowerOutput
from llmdet.prompts.conversation import Conversation, TokenizedConversation, with_image


@dataclass(frozen=True)
class Scene:
    """What R conversations are about."""

    seen: Mapping[str, TowerOutput]  # of each tower, B images
    samples: Sequence[DetDataSample]  # B
    image: Sequence[int]  # R, of which image each conversation is, in their order
    conversations: Sequence[Conversation] = ()  # R, while they are learned
    tokens: Sequence[TokenizedConversation] = ()  # R, likewise


def write_as_it_is(text: str) -> str:
    """The text of a learned turn, unchanged."""
    return text


class Output(nn.Module):
    """Base of outputs; register one in ``MODELS`` to name it in a config."""

    #: Tokens that the language model gets for it.
    added_tokens: tuple[str, ...] = ()
    #: Tokens of other outputs of the model, which the text of answers keeps.
    kept_tokens: tuple[str, ...] = ()
    #: Most regions that answers can tell apart where they are to be found; 0: none.
    most_found: int = 0
    #: Of its losses beside the language model's.
    loss_names: tuple[str, ...] = ()
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

    def connect(self, hidden_size: int, towers: Sequence[str]) -> None:
        """Build what depends on the rest of the model.

        Args:
            hidden_size: width H of the language model.
            towers: names of what sees.
        """

    def mark_features(
        self, features: Mapping[str, Tensor], dialogue: DialogueBatch, lmm: LanguageModel
    ) -> Mapping[str, Tensor]:
        """What fills the slots of conversations, changed so that answers can speak of it.

        Args:
            features: per kind of slot [n, H], in the order of ``dialogue.slots``.
            dialogue: the conversations.
            lmm: reads them.
        """
        return features

    def counts(self, tokens: Sequence[TokenizedConversation], tokenizer: Any) -> dict[str, int]:
        """By what :meth:`losses` are divided, in these conversations."""
        return {}

    def losses(
        self,
        hidden: Tensor,
        dialogue: DialogueBatch,
        scene: Scene,
        tokenizer: Any,
        shares: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """What answers cost beside their words, under the names of ``loss_names``.

        Args:
            hidden: [R, T, H] states of the language model.
            dialogue: R conversations of T tokens, padded behind.
            scene: what they are about.
            tokenizer: the language model's.
            shares: for each of :meth:`counts`, its number here beside the mean of the step.
        """
        return {}

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

    def read(self, generated: Generated, tokenizer: Any, scene: Scene | None = None) -> list[Any]:
        """The answer of each conversation; ``tokenizer`` is the language model's.

        ``scene`` is what the conversations are about, where the system knows towers.
        """
        raise NotImplementedError

    def read_given(
        self, hidden: Tensor, dialogue: DialogueBatch, scene: Scene, tokenizer: Any
    ) -> list[Any]:
        """What is read off the answers that conversations end with, which are not the model's.

        Arguments as in :meth:`losses`.

        Raises:
            ConfigError: the output has nothing beside words.
        """
        raise ConfigError(
            f"{type(self).__name__} reads nothing off answers that are given: answers='given' of "
            "the data set is for models of masks"
        )

    def write_prediction(self, sample: DetDataSample, answers: Sequence[Any]) -> None:
        """Put into a sample what metrics and prediction files read of its answers.

        Here ``pred_text``, or ``pred_phrases`` where there are several, and in ``pred_instances``
        the boxes of the sample's regions.
        """
        texts = list(map(str, answers))
        one = len(texts) == 1
        sample.set_field(texts[0] if one else texts, "pred_text" if one else "pred_phrases")
        boxes = torch.from_numpy(grounding_of(sample).regions.boxes)
        count = len(boxes)
        sample.pred_instances = InstanceData(
            bboxes=boxes, scores=torch.ones(count), labels=torch.zeros(count, dtype=torch.int64)
        )
