"""One call of a detector: what is asked of each image, and what is kept of the answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from llmdet.apis.images import Source
from llmdet.apis.questions import Question, Wording, as_prompt, ask, read_question
from llmdet.apis.reading import Request, one_for_each, read_captions, spread_boxes
from llmdet.errors import ConfigError
from llmdet.prompts.tokens import PromptTokenizer
from llmdet.prompts.types import Prompt
from llmdet.prompts.writing import PromptOptions

_EACH = "give one for each image; class names for all of them are classes=['cat', 'dog']."
#: What a session's predict may be told, beside classes.
SESSION_OPTIONS = (
    *("text", "expression", "spans", "negatives", "templates", "synonyms"),
    *("granularity", "captions", "boxes"),
    *("threshold", "per_class_thresholds", "nms", "generation"),
)


@dataclass(frozen=True)
class Ask:
    """What is asked of one image."""

    question: Question
    boxes: np.ndarray | None = None  # [N, 4] xyxy in pixels of the image, to describe


@dataclass(frozen=True)
class Asker:
    """Reads calls for one model.

    Attributes:
        tokenizer: of its text encoder; None for a detector of proposals, which has none.
        options: how prompts are written for it.
        can_describe: whether it has a language model.
        learned: keys of the classes that need no word which the text encoder knows.
    """

    tokenizer: PromptTokenizer | None
    options: PromptOptions
    can_describe: bool
    learned: frozenset[str] = frozenset()

    def __call__(
        self,
        classes: Sequence[str] | str | None = None,
        *,
        text: str | None = None,
        expression: str | Sequence[str] | None = None,
        spans: tuple[str, Any] | None = None,
        prompts: Iterable[Any] | None = None,
        negatives: Sequence[str] = (),
        templates: Sequence[str] | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        granularity: str | None = None,
        captions: bool | str | Collection[str] = False,
        boxes: Any = None,
        **kept: Any,
    ) -> tuple[Iterator[Ask], Request]:
        """What is asked of image after image, without end unless ``prompts`` end it.

        Args: those of :meth:`Detector.predict`; ``kept`` are those of :class:`Request`.

        Raises:
            ConfigError: arguments that contradict each other or have no such value.
            DataError: a prompt that cannot be used.
        """
        request = Request(captions=read_captions(captions, boxes is not None), **kept)
        if request.captions and not self.can_describe:
            raise ConfigError(
                "Captions need the language model: build the detector with captions=True."
            )
        if boxes is not None and not request.captions:
            raise ConfigError("boxes are given to be described: leave captions out, or True.")
        wording = Wording(tuple(negatives), templates, synonyms)
        if prompts is None:
            prompt = read_question(classes, text, expression, spans, wording, granularity)
            question = self._ask(prompt, len(wording.negatives))
            request.check_names(question)
            questions: Iterator[Question] = repeat(question)
        else:
            given: dict[str, Any] = dict(classes=classes, text=text, expression=expression)
            given |= {"spans": spans, "granularity": granularity}
            if others := [name for name, value in given.items() if value is not None]:
                raise ConfigError(f"prompts and {others[0]} exclude each other: give one of them.")
            questions = (self._ask(as_prompt(entry)) for entry in prompts)
        return map(Ask, questions, spread_boxes(boxes)), request

    def _ask(self, prompt: Prompt, negatives: int = 0) -> Question:
        return ask(prompt, self.tokenizer, self.options, negatives, self.learned)


def pair(sources: Iterable[Source], asks: Iterator[Ask]) -> Iterator[tuple[Source, Ask]]:
    """Each image with what is asked of it.

    Raises:
        ConfigError: there are more images than prompts or boxes.
    """
    for count, source in enumerate(sources):
        asked = next(asks, None)
        if asked is None:
            raise ConfigError(f"There are {count} prompts or boxes and more images: {_EACH}")
        yield source, asked


def check_counts(prompts: Any, boxes: Any, images: int) -> None:
    """Raise a ConfigError if there are more prompts or boxes than images, or fewer."""
    per_image = {"prompts": prompts, "boxes": boxes if one_for_each(boxes) else None}
    for name, entries in per_image.items():
        if isinstance(entries, Sized) and len(entries) != images:
            raise ConfigError(f"{name} has {len(entries)} entries for {images} images: {_EACH}")
