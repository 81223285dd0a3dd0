"""Answers of several kinds at once: text in which objects have indices and words have masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

from mmdet.structures import DetDataSample
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.language.dialogue import DialogueBatch
from llmdet.models.language.language_model import Generated, LanguageModel
from llmdet.prompts.conversation import Conversation, TokenizedConversation
from llmdet.registry import MODELS

from .base import Output, Scene

Part = TypeVar("Part")


@dataclass(frozen=True)
class SeveralAnswers:
    """One answer as each output reads it."""

    text: str  # with the marks of all of them
    parts: tuple[Any, ...]  # of each output, in their order

    def __str__(self) -> str:
        return self.text

    def part(self, kind: type[Part]) -> Part | None:
        """The first reading of a type, None where there is none."""
        return next((part for part in self.parts if isinstance(part, kind)), None)


def part_of(answer: Any, kind: type[Part]) -> Part | None:
    """An answer of a type, or that part of several; None where it is neither."""
    if isinstance(answer, SeveralAnswers):
        return answer.part(kind)
    return answer if isinstance(answer, kind) else None


def output_of(output: Output, kind: type[Part]) -> Part | None:
    """An output of a type, or that one of several; None where there is none."""
    known = output.outputs if isinstance(output, SeveralOutputs) else [output]
    return next((each for each in known if isinstance(each, kind)), None)


@dataclass(frozen=True)
class _WriteEach:
    """Writes a learned text as each output does, one after the other."""

    writers: tuple[Callable[[str], str], ...]

    def __call__(self, text: str) -> str:
        for write in self.writers:
            text = write(text)
        return text


@MODELS.register_module()
class SeveralOutputs(Output):
    """Outputs of one model, whose tokens an answer may mix.

    Args:
        outputs: of the registry, for instance ``ObjectIndex`` and ``Mask``; text needs none.

    Raises:
        ConfigError: there is none, or two have a token or a loss of the same name.
    """

    def __init__(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.outputs = nn.ModuleList(MODELS.build(output) for output in outputs)
        self.added_tokens = tuple(chain.from_iterable(each.added_tokens for each in self._each))
        self.most_found = max((each.most_found for each in self._each), default=0)
        self.loss_names = tuple(chain.from_iterable(each.loss_names for each in self._each))
        for what, names in (("token", self.added_tokens), ("loss", self.loss_names)):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice or not len(self.outputs):
                raise ConfigError(
                    f"model.output.outputs={list(outputs)}: give at least one, and no two with the "
                    f"same {what}s {twice}"
                )
        for output in self._each:
            mine = set(output.added_tokens)
            output.kept_tokens = tuple(each for each in self.added_tokens if each not in mine)
        self.write = _WriteEach(tuple(each.write for each in self._each))

    @property
    def _each(self) -> list[Output]:
        return list(self.outputs)  # type: ignore[arg-type]

    def introduce(self, conversation: Conversation, regions: int) -> Conversation:
        """With what each of them wants to stand in front."""
        for output in self._each:
            conversation = output.introduce(conversation, regions)
        return conversation

    def connect(self, hidden_size: int, towers: Sequence[str]) -> None:
        """Build what depends on the rest of the model."""
        for output in self._each:
            output.connect(hidden_size, towers)

    def mark_features(
        self, features: Mapping[str, Tensor], dialogue: DialogueBatch, lmm: LanguageModel
    ) -> Mapping[str, Tensor]:
        """What fills the slots, as all of them change it."""
        for output in self._each:
            features = output.mark_features(features, dialogue, lmm)
        return features

    def counts(self, tokens: Sequence[TokenizedConversation], tokenizer: Any) -> dict[str, int]:
        """What the losses of all of them are divided by."""
        return {k: n for each in self._each for k, n in each.counts(tokens, tokenizer).items()}

    def losses(
        self,
        hidden: Tensor,
        dialogue: DialogueBatch,
        scene: Scene,
        tokenizer: Any,
        shares: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """The losses of all of them."""
        found: dict[str, Tensor] = {}
        for output in self._each:
            found |= output.losses(hidden, dialogue, scene, tokenizer, shares)
        return found

    def constraints(
        self, lmm: LanguageModel, dialogue: DialogueBatch, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """What each of them asks of ``generate``, together."""
        limits: dict[str, Any] = {}
        for output in self._each:
            limits |= output.constraints(lmm, dialogue, {**options, **limits})
        return limits

    def read(
        self, generated: Generated, tokenizer: Any, scene: Scene | None = None
    ) -> list[SeveralAnswers]:
        """One answer for each conversation."""
        parts = [output.read(generated, tokenizer, scene) for output in self._each]
        kept = set(tokenizer.convert_tokens_to_ids(list(self.added_tokens)))
        skipped = set(tokenizer.all_special_ids) - kept
        texts = []
        for ids in generated.ids.tolist():
            end = tokenizer.eos_token_id
            said = ids[: ids.index(end)] if end in ids else ids
            texts.append(tokenizer.decode([each for each in said if each not in skipped]).strip())
        pairs = zip(texts, zip(*parts, strict=True), strict=True)
        return [SeveralAnswers(text, read) for text, read in pairs]

    def write_prediction(self, sample: DetDataSample, answers: Sequence[SeveralAnswers]) -> None:
        """As text, with what those outputs add that write predictions of their own."""
        for number, output in enumerate(self._each):
            if type(output).write_prediction is not Output.write_prediction:
                output.write_prediction(sample, [answer.parts[number] for answer in answers])
        found = sample.get("pred_instances")
        super().write_prediction(sample, answers)
        if found is not None:
            sample.pred_instances = found
