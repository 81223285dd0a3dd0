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


def misspelling_of(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` misspells by a slip or two, None where it may be meant as it is.

    For places where unknown words are allowed. A slip is a letter too many, too few, another one,
    or two swapped; words of less than eight letters have one at most.
    """
    allowed = 1 if len(word) < 8 else 2
    near = [(slips, name) for name in known if 0 < (slips := _slips(word, name)) <= allowed]
    return min(near)[1] if near else None


def _slips(first: str, second: str) -> int:
    """Edit distance with swaps of neighbours (optimal string alignment)."""
    if abs(len(first) - len(second)) > 2:
        return 3
    before: list[int] = []
    last = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        row = [i]
        for j, b in enumerate(second, 1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b)))
            if i > 1 and j > 1 and a == second[j - 2] and first[i - 2] == b:
                row[j] = min(row[j], before[j - 2] + 1)
        before, last = last, row
    return last[-1]
