"""The prompt of an image whose objects are named by the words of a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmdet.datasets.transforms.tokens import characters_with_token, token_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans = list[list[int]]


@dataclass(frozen=True)
class GroundingText:
    """A caption made ready for the text encoder."""

    text: str
    spans: dict[int, Spans]  # phrase -> [start, end) characters of text that have tokens
    beyond_limit: frozenset[int]  # phrases that the token limit cuts off
    without_token: frozenset[int]  # phrases whose spans hold no word of the caption


def grounding_text(
    caption: str,
    spans: Mapping[int, Sequence[Sequence[int]]],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
) -> GroundingText:
    """Lower-case and close a caption, and find where its phrases are then.

    Args:
        caption: as annotated.
        spans: phrase -> [start, end) characters of `caption`.
        tokenizer: the text encoder's.
        max_tokens: most tokens of a prompt, special tokens included; a longer caption is cut
            between two tokens.
    """
    shift = len(caption) - len(caption.lstrip())
    text = _lower(caption).strip()
    text = text if text.endswith(".") else f"{text}. "
    offsets = token_offsets(text, tokenizer)
    budget = max_tokens - tokenizer.num_special_tokens_to_add()
    whole = limit = len(text)
    if len(offsets) > budget:
        offsets = offsets[: max(budget - 1, 0)]  # one token is left for the closing dot
        limit = int(offsets[-1, 1]) if len(offsets) else 0
        text = f"{text[:limit]}. "
    has_token = characters_with_token(offsets, limit)
    kept: dict[int, Spans] = {}
    beyond: set[int] = set()
    for phrase, given in spans.items():
        shifted = [(start - shift, min(end - shift, whole)) for start, end in given]
        inside = [_trim(start, end, has_token) for start, end in shifted if end <= limit]
        found = [span for span in inside if span is not None]
        if found:
            kept[phrase] = found
        elif len(inside) < len(shifted):
            beyond.add(phrase)
    without_token = frozenset(spans) - frozenset(kept) - beyond
    return GroundingText(text, kept, frozenset(beyond), without_token)


def _lower(text: str) -> str:
    """Lower-case without moving any character ("İ" would become two)."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _trim(start: int, end: int, has_token: np.ndarray) -> list[int] | None:
    """Narrow a span to its characters with tokens."""
    start = max(start, 0)
    (inside,) = np.nonzero(has_token[start:end])
    if not len(inside):
        return None
    return [start + int(inside[0]), start + int(inside[-1]) + 1]
