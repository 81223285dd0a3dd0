"""From character spans to tokens, with the text encoder's tokenizer and its limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from llmdet.errors import DataError
from llmdet.prompts.parse import shorten
from llmdet.prompts.tokenizers import MAX_TOKENS
from llmdet.prompts.types import Prompt, PromptText, Span, TokenizedPrompt
from llmdet.prompts.writing import PromptOptions, write_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: A span may begin or end on blanks; its edge is then looked for this many characters inwards.
_SLACK = 2
#: Data sets without a fixed vocabulary name ever new things.
_REMEMBERED_TEXTS, _REMEMBERED_PROMPTS = 100_000, 64


class PromptTokenizer:
    """The text encoder's tokenizer together with the longest prompt that it may get.

    Args:
        tokenizer: a fast one.
        max_tokens: most tokens of a prompt, special tokens included.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int = MAX_TOKENS) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        #: Most tokens of a prompt, special tokens not included.
        self.room = max_tokens - tokenizer.num_special_tokens_to_add()
        self._counts: dict[str, int] = {}
        self._prompts: OrderedDict[Hashable, tuple[TokenizedPrompt, ...]] = OrderedDict()

    def __call__(
        self,
        prompt: Prompt,
        options: PromptOptions = PromptOptions(),  # noqa: B008  it is frozen
    ) -> tuple[TokenizedPrompt, ...]:
        """The tokenised texts of a prompt; made once for equal prompts.

        Raises:
            DataError: see :func:`llmdet.prompts.writing.write_prompt` and :meth:`tokenize`.
        """
        key = (prompt, options)
        if key not in self._prompts:
            texts = write_prompt(prompt, self.count, self.room, options)
            self._prompts[key] = tuple(map(self.tokenize, texts))
            if len(self._prompts) > _REMEMBERED_PROMPTS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens; equal texts are counted once."""
        new = list({text for text in texts if text not in self._counts})
        if new:
            if len(self._counts) > _REMEMBERED_TEXTS:
                self._counts.clear()
                new = list(set(texts))
            rows = self._encode(new, add_special_tokens=False)["input_ids"]
            self._counts.update(zip(new, map(len, rows), strict=True))
        return [self._counts[text] for text in texts]

    def offsets(self, text: str) -> np.ndarray:
        """[L, 2] int64: the [start, end) characters of each token, without special tokens."""
        encoded = self._encode(text, add_special_tokens=False, return_offsets_mapping=True)
        return np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)

    def tokenize(self, written: PromptText) -> TokenizedPrompt:
        """Tokens of a text and of its entities.

        Raises:
            DataError: the text is too long, or an entity has spans but none of them has a token.
        """
        encoded = self._encode(written.text, return_offsets_mapping=True)
        ids = np.asarray(encoded["input_ids"], dtype=np.int64)
        check_length(written.text, len(ids), self.max_tokens)
        offsets = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        token_map = tokens_of_spans(offsets, len(written.text), written.spans)
        _check_every_entity_has_tokens(written, token_map)
        values = {field.name: getattr(written, field.name) for field in fields(PromptText)}
        values["variants"] = tuple(map(self.tokenize, written.variants))
        return TokenizedPrompt(**values, ids=ids, token_map=token_map)

    def _encode(self, text: str | list[str], **options: Any) -> Any:
        try:
            return self.tokenizer(text, verbose=False, **options)
        except TypeError as error:
            broken = _not_unicode(text)
            if broken is None:
                raise
            raise DataError(
                f"The text {shorten(ascii(broken))} was read from bytes that are not UTF-8; "
                "convert them."
            ) from error


def _not_unicode(texts: str | list[str]) -> str | None:
    """The first text with half a surrogate pair, as which Python reads bytes that are no UTF-8."""
    for text in [texts] if isinstance(texts, str) else texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            return text
    return None


def check_length(text: str, tokens: int, max_tokens: int) -> None:
    """Raise DataError if a prompt has more tokens than the text encoder takes."""
    if tokens > max_tokens:
        raise DataError(
            f"A prompt has {tokens} tokens, but the text encoder's max_tokens is {max_tokens}: "
            f"{shorten(text)!r}. Give class names as a list (or with --custom-entities), which is "
            "cut into chunks that fit; shorten a sentence."
        )


def check_labels(labels: Iterable[int], prompt: TokenizedPrompt) -> None:
    """Raise DataError if a box has a label that no token of its text stands for."""
    for label in sorted(set(labels)):
        if not 0 <= label < len(prompt.token_map) or not prompt.token_map[label].any():
            raise DataError(
                f"A box has the label {label}, and no token of the text {shorten(prompt.text)!r} "
                "stands for it: give its words in tokens_positive, or its class a name."
            )


def span_tokens(
    text: str, spans: Sequence[Sequence[Span]], tokenizer: PreTrainedTokenizerBase
) -> np.ndarray:
    """Tokens of each entity of one text of any length: [K, L] bool, see :func:`tokens_of_spans`."""
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    return tokens_of_spans(np.asarray(encoded["offset_mapping"]), len(text), spans)


def tokens_of_spans(
    offsets: np.ndarray, characters: int, spans: Sequence[Sequence[Span]]
) -> np.ndarray:
    """Tokens of each entity of one text.

    A span begins at the token of its first character and ends at the token of its last; a
    character without token (a blank) is stepped over, up to two of them. Spans between words, or
    outside the text, have no tokens.

    Args:
        offsets: [L, 2] int, the [start, end) characters of each token; empty for special tokens.
        characters: length of the text.
        spans: K lists of [start, end) character spans.

    Returns:
        [K, L] bool.
    """
    tokens = np.zeros((len(spans), len(offsets)), dtype=bool)
    rows = [(k, *span) for k, entity_spans in enumerate(spans) for span in entity_spans]
    if not rows:
        return tokens
    entity, start, stop = np.asarray(rows).T[:, :, None]  # [S, 1] each

    at_char = _token_of_character(offsets, characters)
    inwards = np.arange(_SLACK + 1)
    first = _first_known(at_char, start + inwards)  # [S]
    last = _first_known(at_char, stop - 1 - inwards)
    known = (first >= 0) & (last >= 0)
    index = np.arange(len(offsets))
    inside = (index >= first[:, None]) & (index <= last[:, None]) & known[:, None]  # [S, L]
    np.logical_or.at(tokens, entity[:, 0], inside)
    return tokens


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


def _check_every_entity_has_tokens(written: PromptText, token_map: np.ndarray) -> None:
    for k in np.flatnonzero(~token_map.any(axis=1)).tolist():
        if written.spans[k]:
            raise DataError(
                f"Entity {written.label_offset + k}, {written.entities[k]!r} at characters "
                f"{[list(span) for span in written.spans[k]]}, has no token in the text "
                f"{shorten(written.text)!r}: give it a name that the tokenizer knows, or correct "
                "its tokens_positive."
            )
