"""Boxes that stand numbered in a picture: the question to any model that sees, and its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: {count} and {phrase} are filled in.
QUESTION = (
    "The picture shows {count} boxes, each with its number, 1 to {count}. Which of them contain "
    "this: {phrase}? Answer with their numbers and commas alone, or with the word none if no box "
    "contains it."
)
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|$)", re.DOTALL | re.IGNORECASE)
_LIST = re.compile(r"\[[^\[\]]*\]")
_CONCLUSION = re.compile(r"\b(?:final )?answer\b(?: is)?\s*:?", re.IGNORECASE)
_REFUSAL = re.compile(
    r"^\W*(?:none|nothing|zero|empty|null|0(?!\.\d)|no(?!\W*\d))\b"
    r"|\[\s*\]"
    r"|\b(?:none|no such|no box|not (?:present|visible|shown|there|in the (?:picture|image)))\b",
    re.IGNORECASE,
)
#: A whole number or a range of two; parts of decimals, percentages and longer numbers are none.
_NUMBER = re.compile(
    r"(?<![\d.])(\d{1,4})(?:\s*(?:-|\u2013|to)\s*(?:box )?#?(\d{1,4}))?(?!\d|\.\d|%)"
)


@dataclass(frozen=True)
class NumberedAnswer:
    """What was said about numbered boxes."""

    indices: tuple[int, ...]  # of the boxes that were named, counted from 0, in their order
    absent: bool  # whether it says that none is meant
    text: str


def ask_for_numbers(phrase: str, count: int, question: str = QUESTION) -> str:
    """The question which of the boxes 1 to ``count`` a phrase means."""
    return question.replace("{count}", str(count)).replace("{phrase}", phrase)


def read_numbers(text: str, count: int) -> NumberedAnswer:
    """What any answer says, however it is worded.

    Thoughts are passed over; what follows the last "answer:" counts alone, and in it the last list
    in brackets, where there are any. Numbers of no box are left out.

    Args:
        text: of any model, be it cut or no answer at all.
        count: of boxes.
    """
    said = _conclusion(_THOUGHT.sub(" ", text))
    if _REFUSAL.match(said):
        return NumberedAnswer((), True, text)
    lists = [found for found in _LIST.findall(said) if _NUMBER.search(found)]
    named: dict[int, None] = {}
    for first, last in _NUMBER.findall(lists[-1] if lists else said):
        low, high = int(first), int(last or first)
        named |= dict.fromkeys(range(max(low, 1), min(high, count) + 1))
    absent = not named and _REFUSAL.search(said) is not None
    return NumberedAnswer(tuple(number - 1 for number in named), absent, text)


def _conclusion(text: str) -> str:
    """What stands behind the last word "answer", or all of it."""
    parts = _CONCLUSION.split(text)
    behind = parts[-1]
    return behind if _NUMBER.search(behind) or _REFUSAL.search(behind) else text
