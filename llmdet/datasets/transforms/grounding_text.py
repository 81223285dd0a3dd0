"""The prompt of an image whose objects are named by the words of a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmdet.prompts.tokens import PromptTokenizer
from llmdet.prompts.types import Spans
from llmdet.prompts.writing import SEPARATOR, close_sentence


@dataclass(frozen=True)
class GroundingText:
    """A caption made ready for the text encoder."""

    text: str
    spans: dict[int, list[list[int]]]  # phrase -> [start, end) characters of text that have tokens
    beyond_limit: frozenset[int]  # phrases that the token limit cuts off
    without_token: frozenset[int]  # phrases whose spans hold no word of the caption

    @property
    def prompt(self) -> Spans:
        labels = range(max(self.spans, default=-1) + 1)
        spans = (self.spans.get(label, ()) for label in labels)
        return Spans(self.text, tuple(tuple((start, end) for start, end in s) for s in spans))


def grounding_text(
    caption: str, spans: Mapping[int, Sequence[Sequence[int]]], tokenizer: PromptTokenizer
) -> GroundingText:
    """Close a caption, cut it where it is too long, and keep the phrases that have tokens.

    Args:
        caption: as annotated.
        spans: phrase -> [start, end) characters of `caption`.
        tokenizer: the text encoder's; a longer caption is cut between two tokens.
    """
    text = close_sentence(caption)
    offsets = tokenizer.offsets(text)
    whole = limit = len(text)
    if len(offsets) > tokenizer.room:
        offsets = offsets[: max(tokenizer.room - 1, 0)]  # one token is left for the closing dot
        limit = int(offsets[-1, 1]) if len(offsets) else 0
        text = text[:limit] + SEPARATOR
    has_token = _characters_with_token(offsets, limit)
    kept: dict[int, list[list[int]]] = {}
    beyond: set[int] = set()
    for phrase, given in spans.items():
        clipped = [(start, min(end, whole)) for start, end in given]
        inside = [_trim(start, end, has_token) for start, end in clipped if end <= limit]
        found = [span for span in inside if span is not None]
        if found:
            kept[phrase] = found
        elif len(inside) < len(given):
            beyond.add(phrase)
    without_token = frozenset(spans) - frozenset(kept) - beyond
    return GroundingText(text, kept, frozenset(beyond), without_token)


def _characters_with_token(offsets: np.ndarray, length: int) -> np.ndarray:
    """[length] bool: which characters of a text belong to one of the tokens at ``offsets``."""
    steps = np.zeros(length + 1, np.int64)
    np.add.at(steps, offsets[:, 0], 1)
    np.add.at(steps, offsets[:, 1], -1)
    return steps.cumsum()[:-1] > 0


def _trim(start: int, end: int, has_token: np.ndarray) -> list[int] | None:
    """Narrow a span to its characters with tokens."""
    start = max(start, 0)
    (inside,) = np.nonzero(has_token[start:end])
    if not len(inside):
        return None
    return [start + int(inside[0]), start + int(inside[-1]) + 1]
