"""From character spans to tokens: which tokens of a prompt stand for which class or phrase."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llmdet.errors import DataError

if TYPE_CHECKING:
    from llmdet.models.text.prompt import Prompt

Span = tuple[int, int]
#: A span may begin or end on blanks; its edge is then looked for this many characters inwards.
_SLACK = 2


def token_map(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> Tensor:
    """Which tokens stand for which entity, for a batch of prompts.

    Args:
        prompts: B prompts.
        tokenizer: the text encoder's own (``BertModel.tokenizer``).
        max_tokens: the text encoder's limit.

    Returns:
        [B, K, L] bool on the CPU; K is the largest number of entities, L the longest prompt in
        tokens. Row k holds the tokens of entity k, never [CLS], [SEP] or padding. Rows of entities
        without spans (labels that a training sample does not use) and beyond a prompt's own
        entities are empty.

    Raises:
        DataError: a prompt is too long, or an entity has spans but none of them has a token.
    """
    rows = [_entity_tokens(prompt, tokenizer) for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        check_length(prompt.text, row.shape[1], max_tokens)
        _check_every_entity_has_tokens(prompt, row)
    entities = max(row.shape[0] for row in rows)
    length = max(row.shape[1] for row in rows)
    mapped = torch.zeros(len(rows), entities, length, dtype=torch.bool)
    for i, row in enumerate(rows):
        mapped[i, : row.shape[0], : row.shape[1]] = row
    return mapped


def span_tokens(
    text: str, spans: Sequence[Sequence[Span]], tokenizer: PreTrainedTokenizerBase
) -> np.ndarray:
    """Tokens of each entity of one text.

    A span begins at the token of its first character and ends at the token of its last; a
    character without token (a blank) is stepped over, up to two of them. Spans between words, or
    outside the text, have no tokens.

    Args:
        text: what the tokenizer gets.
        spans: K lists of [start, end) character spans.
        tokenizer: a fast one.

    Returns:
        [K, L] bool, L the tokens of ``text`` with [CLS] and [SEP].
    """
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    offsets = np.asarray(encoded["offset_mapping"])  # [L, 2]
    tokens = np.zeros((len(spans), len(offsets)), dtype=bool)
    rows = [(k, *span) for k, entity_spans in enumerate(spans) for span in entity_spans]
    if not rows:
        return tokens
    entity, start, stop = np.asarray(rows).T[:, :, None]  # [S, 1] each

    at_char = _token_of_character(offsets, len(text))
    inwards = np.arange(_SLACK + 1)
    first = _first_known(at_char, start + inwards)  # [S]
    last = _first_known(at_char, stop - 1 - inwards)
    known = (first >= 0) & (last >= 0)
    index = np.arange(len(offsets))
    inside = (index >= first[:, None]) & (index <= last[:, None]) & known[:, None]  # [S, L]
    np.logical_or.at(tokens, entity[:, 0], inside)
    return tokens


def check_length(text: str, tokens: int, max_tokens: int) -> None:
    """Raise DataError if a prompt has more tokens than the text encoder takes."""
    if tokens > max_tokens:
        raise DataError(
            f"A prompt has {tokens} tokens, but the text encoder's max_tokens is {max_tokens}: "
            f"{shorten(text)!r}. Give class names as a list (or with --custom-entities), which is "
            "cut into chunks that fit; shorten a sentence."
        )


def shorten(text: str, width: int = 80) -> str:
    """The text as an error message quotes it."""
    return text if len(text) <= width else f"{text[:width]}..."


@lru_cache(maxsize=1024)
def _entity_tokens(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    return torch.from_numpy(span_tokens(prompt.text, prompt.spans, tokenizer))


def _token_of_character(offsets: np.ndarray, characters: int) -> np.ndarray:
    """[characters] int: the first token that covers each character, -1 where none does."""
    at_char = np.full(characters, -1)
    length = offsets[:, 1] - offsets[:, 0]  # [L], 0 for [CLS] and [SEP]
    token = np.repeat(np.arange(len(offsets)), length)
    within = np.arange(len(token)) - np.repeat(length.cumsum() - length, length)
    character = np.repeat(offsets[:, 0], length) + within
    # Reversed: where several tokens cover a character, the first one is written last.
    at_char[character[::-1]] = token[::-1]
    return at_char


def _first_known(at_char: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """[S] int: token of the first candidate character [S, n] that has one, else -1."""
    in_text = (candidates >= 0) & (candidates < len(at_char))
    found = np.where(in_text, at_char[np.clip(candidates, 0, len(at_char) - 1)], -1)
    best = np.argmax(found >= 0, axis=1)
    return found[np.arange(len(found)), best]


def _check_every_entity_has_tokens(prompt: Prompt, tokens: Tensor) -> None:
    for k in (~tokens.any(dim=1)).nonzero().flatten().tolist():
        if prompt.spans[k]:
            raise DataError(
                f"Entity {prompt.label_offset + k}, {prompt.entities[k]!r} at characters "
                f"{[list(span) for span in prompt.spans[k]]}, has no token in the text "
                f"{shorten(prompt.text)!r}: its spans cover blanks only. Correct its "
                "tokens_positive."
            )
