"""What somebody who wrote a prompt should know of it, although it can be used."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmdet.prompts.class_names import class_key
from llmdet.prompts.parse import shorten
from llmdet.prompts.types import Classes, Prompt, TokenizedPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LISTED = 5


def prompt_hints(
    prompt: Prompt,
    chunks: Sequence[TokenizedPrompt],
    tokenizer: PreTrainedTokenizerBase,
    learned: Container[str] = (),
) -> Iterator[str]:
    """One sentence for each thing about a prompt that its writer may not have meant.

    Args:
        prompt: what to look for.
        chunks: the texts that it was written in.
        tokenizer: that tokenised them.
        learned: keys of classes (:func:`class_key`) that were learned from examples, whose words
            may be any.
    """
    unknown = _words(chunks, tokenizer, [tokenizer.unk_token_id], learned)
    if unknown:
        yield (
            f"The text encoder does not know {_listed(unknown)}: all unknown words are the same "
            f"{tokenizer.unk_token} to it. Use other words."
        )
    marks = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    special = _words(chunks, tokenizer, marks, learned)
    if special:
        yield (
            f"The prompt has {_listed(special)} in it, which the text encoder reads as a mark of "
            "its own and not as words: leave it out."
        )
    if isinstance(prompt, Classes) and len(prompt.names) == 1 and "," in prompt.names[0]:
        name = prompt.names[0]
        several = " . ".join(part.strip() for part in name.split(","))
        yield (
            f"{shorten(name)!r} is one class, as commas do not separate: for several classes write "
            f"{shorten(several)!r}."
        )


def _words(
    chunks: Sequence[TokenizedPrompt],
    tokenizer: PreTrainedTokenizerBase,
    ids: Iterable[int | None],
    learned: Container[str],
) -> list[str]:
    """The words of the prompts that became one of these token ids, first and last one left out."""
    wanted = [token for token in ids if token is not None]
    words: dict[str, None] = {}
    for chunk in chunks:
        found = np.isin(chunk.ids, wanted)
        found[[0, -1]] = False
        for name, tokens in zip(chunk.entities, chunk.token_map, strict=True):
            if class_key(name) in learned:
                found &= ~tokens
        places = np.flatnonzero(found)
        if len(places):
            encoded = tokenizer(chunk.text, return_offsets_mapping=True, verbose=False)
            offsets = [encoded["offset_mapping"][place] for place in places]
            words.update((chunk.text[start:stop], None) for start, stop in offsets)
    return list(words)


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return ", ".join(repr(word) for word in words[:_LISTED]) + more
