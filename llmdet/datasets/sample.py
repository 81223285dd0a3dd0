"""The typed sample that models, metrics and pictures read: one field of a ``DetDataSample``.

Beside it mmdet's own fields stay as mmdet has them: img_id, img_path, ori_shape, img_shape,
scale_factor, flip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmdet.errors import naming
from llmdet.prompts.conversation import Conversation
from llmdet.prompts.parse import parse_prompt
from llmdet.prompts.types import Prompt, TokenizedPrompt

#: COCO's run-length encoding (size, counts), or polygons [x1, y1, x2, y2, ...] in pixels.
Mask = Mapping[str, Any] | Sequence[Sequence[float]]


@dataclass(frozen=True, eq=False)
class Regions:
    """N regions that a conversation speaks of, in pixels of the original image."""

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))  # [N, 4] xyxy
    masks: tuple[Mask | None, ...] | None = None  # N; None where no region has one
    scores: np.ndarray | None = None  # [N] of the detector that found them, where they count

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Sought:
    """What one conversation asks to find among the regions."""

    names: tuple[str, ...]
    labels: tuple[int, ...]  # of each name, into the classes of the data set

    def label_of(self, phrase: str) -> int | None:
        """The label of a phrase of the answer: of one name whatever the answer calls it."""
        if len(self.names) == 1:
            return self.labels[0]
        folded = [name.casefold() for name in self.names]
        said = phrase.strip().casefold()
        return self.labels[folded.index(said)] if said in folded else None


@dataclass(frozen=True, eq=False)
class GroundingSample:
    """What is asked of an image, what is to be said of it, and what metrics compare with."""

    prompt: Prompt | None = None  # what to look for
    tokenized: tuple[TokenizedPrompt, ...] = ()  # of the prompt, where a worker has made it
    regions: Regions = field(default_factory=Regions)
    conversations: tuple[Conversation, ...] = ()  # what the language model learns to say
    sought: tuple[Sought, ...] = ()  # of each conversation, where regions are to be found
    phrases: tuple[str, ...] = ()  # of phrase grounding, one a label
    phrase_ids: tuple[int, ...] = ()  # N, the phrase of each annotated box
    category_ids: tuple[int, ...] | None = None  # K, category of each label of this image
    tags: tuple[str, ...] = ()  # words for what the image shows, as annotated
    dataset_mode: str | None = None  # "VG": captions with phrases, "OD": detection data

    def __deepcopy__(self, memo: dict[int, Any]) -> GroundingSample:
        """Nothing changes it: copies of a ``DetDataSample``, which are many, share it."""
        return self


def grounding_of(sample: Any) -> GroundingSample:
    """The typed part of a sample, made here from mmdet's metainfo where its pipeline packed it.

    Args:
        sample: a ``DetDataSample``, the dict it becomes for metrics, or the results of a pipeline.

    Raises:
        DataError: text and spans of the metainfo are no prompt; names the image.
    """
    made = sample.get("grounding")
    return made if made is not None else read_grounding(sample)


def read_grounding(fields: Any) -> GroundingSample:
    """A typed sample from the fields that pipelines and mmdet's data sets use.

    Args:
        fields: anything with ``get``, such as the results of a pipeline: text, custom_entities,
            tokens_positive and caption_prompt (mmdet's schema, see :func:`parse_prompt`) or a
            prompt, and those of :class:`GroundingSample`; sent_ids are mmdet's category_ids.

    Raises:
        DataError: text and spans are no prompt; names the image.
    """
    categories = fields.get("category_ids")
    if categories is None:
        categories = fields.get("sent_ids")
    phrases = fields.get("phrases") or ()
    return GroundingSample(
        prompt=_read_prompt(fields),
        tokenized=tuple(fields.get("tokenized") or ()),
        regions=fields.get("regions") or Regions(),
        conversations=tuple(fields.get("conversations") or ()),
        sought=tuple(fields.get("sought") or ()),
        phrases=tuple(map(_words, phrases.values() if isinstance(phrases, Mapping) else phrases)),
        phrase_ids=_numbers(fields.get("phrase_ids")) or (),
        category_ids=_numbers(categories),
        tags=tuple(fields.get("tags") or ()),
        dataset_mode=fields.get("dataset_mode"),
    )


def _read_prompt(fields: Any) -> Prompt | None:
    prompt = fields.get("prompt")
    if prompt is not None or fields.get("text") is None:
        return prompt
    with naming(fields.get("img_path")):
        return parse_prompt(
            fields.get("text"),
            custom_entities=bool(fields.get("custom_entities")),
            tokens_positive=fields.get("tokens_positive"),
            caption_prompt=fields.get("caption_prompt"),
        )


def _numbers(values: Any) -> tuple[int, ...] | None:
    return None if values is None else tuple(int(value) for value in np.asarray(values).ravel())


def _words(phrase: Any) -> str:
    """The text of a phrase; data sets give it bare, in a dict, or with spellings to choose from."""
    if isinstance(phrase, Mapping):
        phrase = phrase["phrase"]
    return phrase if isinstance(phrase, str) else " / ".join(phrase)
