"""What to look for in each image: from the forms that users write to one form per image."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmdet.apis.class_names import dataset_class_names
from llmdet.errors import ConfigError
from llmdet.prompts.parse import WHOLE_TEXT, parse_prompt
from llmdet.prompts.types import Prompt

Span = list[int]
#: None: find the noun phrases; -1: the whole text is one expression; else the spans of entities.
TokensPositive = int | list[list[Span]] | None

_DATASET_MARK = "$:"
_SPAN_FORMS = (
    "write -1 for the whole text, or a list of character spans, one entry per entity: "
    "'[[0, 7], [12, 15]]' or, for an entity of several pieces, '[[[0, 3], [8, 11]], [[12, 15]]]'"
)


Texts = str | Prompt | Sequence[str | Sequence[str] | Prompt]


def image_prompts(
    texts: Texts,
    count: int,
    *,
    custom_entities: bool = False,
    tokens_positive: int | list | None = None,
) -> list[Prompt]:
    """Return one prompt for each of ``count`` images.

    Args:
        texts: One text for all images, or one entry per image: a text, a list of class names or
            a :data:`~llmdet.prompts.types.Prompt`. ``"$: lvis"`` stands for the class names of a
            data set.
        count: Number of images.
        custom_entities: Texts are lists of classes, separated by " . ".
        tokens_positive: None finds the noun phrases of a text; -1 takes the whole text as one
            expression; else one list of [start, end) character spans per entity. Entries
            that are prompts already are taken as they are.

    Raises:
        ConfigError: The number of texts differs from that of the images, a text is empty, or
            classes come together with spans.
        DataError: A class has no word, or a span lies outside its text.
    """
    spans = normalize_spans(tokens_positive)
    if custom_entities and spans is not None:
        raise ConfigError(
            "custom_entities and tokens_positive exclude each other: the first says that the text "
            "is a list of classes, the second which parts of a sentence to find."
        )
    if isinstance(texts, (str, Prompt)):
        return [_prompt(texts, custom_entities, spans)] * count
    if len(texts) != count:
        raise ConfigError(
            f"texts has {len(texts)} entries for {count} images: give one text for all, or one "
            "entry per image; class names for a single image are a list in that list, [['cat', "
            "'dog']]."
        )
    return [_prompt(text, custom_entities, spans) for text in texts]


def normalize_spans(value: int | list | None) -> TokensPositive:
    """Check ``tokens_positive`` and wrap plain spans, so that there is one list per entity.

    Raises:
        ConfigError: It is neither None, -1 nor a list of spans.
    """
    if value is None or (isinstance(value, int) and value == WHOLE_TEXT):
        return value
    if not isinstance(value, (list, tuple)) or len(value) == 0:
        raise ConfigError(f"tokens_positive is {value!r}: {_SPAN_FORMS}.")
    return [_entity_spans(entity, value) for entity in value]


def parse_spans(value: str) -> TokensPositive:
    """Read ``tokens_positive`` from the command line.

    Raises:
        ConfigError: As :func:`normalize_spans`, or the text is no number and no list.
    """
    try:
        return normalize_spans(ast.literal_eval(value.strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"tokens_positive is {value!r}: {_SPAN_FORMS}.") from error


def _prompt(
    text: str | Sequence[str] | Prompt, custom_entities: bool, spans: TokensPositive
) -> Prompt:
    if isinstance(text, Prompt):
        return text
    if not isinstance(text, str):
        return parse_prompt(text)
    if text.strip().startswith(_DATASET_MARK):
        return parse_prompt(dataset_class_names(text.strip().removeprefix(_DATASET_MARK)))
    if not text.strip():
        raise ConfigError("The text is empty: say what to look for, such as 'cat . dog'.")
    return parse_prompt(text, custom_entities=custom_entities, tokens_positive=spans)


def _entity_spans(entity: Any, value: Any) -> list[Span]:
    spans = [entity] if _is_span(entity) else entity
    if not isinstance(spans, (list, tuple)) or not spans or not all(map(_is_span, spans)):
        raise ConfigError(f"tokens_positive is {value!r}: {_SPAN_FORMS}.")
    return [[int(start), int(end)] for start, end in spans]


def _is_span(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(number, int) and not isinstance(number, bool) for number in value)
    )


def parse_boxes(text: str) -> np.ndarray:
    """Read ``[[x1, y1, x2, y2], ...]``; returns [N, 4] float32 in pixels of the original image.

    Raises:
        ConfigError: The text is no list of boxes, or a box has no area.
    """
    boxes: np.ndarray
    try:
        boxes = np.asarray(json.loads(text), dtype=np.float32)
    except (ValueError, TypeError, RecursionError, OverflowError):
        boxes = np.zeros(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ConfigError(f"--boxes {text!r} is no list of boxes such as [[10, 20, 90, 80]].")
    if (boxes[:, 2:] <= boxes[:, :2]).any():
        raise ConfigError(f"--boxes {text!r} has a box whose right or lower side comes first.")
    return boxes
