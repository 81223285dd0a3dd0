"""The one "did you mean" of all error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 30  # names that a sentence can hold


def did_you_mean(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The end of a sentence about an unknown word: its nearest match, or what there is.

    Args:
        word: what the user wrote.
        known: what could have been meant.
        otherwise: answer where nothing is near; default: the known words, the first 30 of many.
    """
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    if otherwise is not None:
        return otherwise
    more = f", ... ({len(words)} in all)" if len(words) > _LISTED else ""
    return f"known: {', '.join(words[:_LISTED])}{more}"
