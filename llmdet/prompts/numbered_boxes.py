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
_CONCLUSION = re.compile(r"\banswers?\b[\s*_\"']*(?::|(?:is|are)\b)", re.IGNORECASE)
#: Behind which reasons may follow: of a sentence, unless it is the "1." of a list, of a paragraph,
#: and of what stands above a heading such as "Reason:".
_END = re.compile(
    r"(?<!^\d)(?<!^\d\d)[.!?]\s+(?=[A-Z])|\n\s*\n|\n(?=\W{0,4}[A-Z][a-z]+\W{0,4}:)", re.MULTILINE
)
#: First lines with nothing but numbers, as they are asked for.
_PLAIN = re.compile(r"(?:[\W\d]|\b(?:box(?:es)?|numbers?|no|and|to)\b)+(?:\n|$)", re.IGNORECASE)
#: "4 and 5" stand behind the colon of "There are 2 people: 4 and 5"; one behind a number is the
#: box's: "4: a dog".
_COLON = re.compile(r"(?<!\d)(?<!\d[\"'*)\]>])(?<!\d\*\*):")
_REFUSAL = re.compile(
    r"^\W*(?:none|nothing|zero|empty|null|0(?!\.\d)|no(?!\W*\d))\b"
    r"|\[\s*\]"
    r"|\b(?:none|no such|no box|not (?:present|visible|shown|there|in the (?:picture|image)))\b",
    re.IGNORECASE,
)
#: In front of the boxes that a refusal leaves: "none of them except 2", "no box but 2".
_EXCEPTION = re.compile(
    r"^\W*(?:none|nothing|no)\b"
    r"(?:[^.;:\n]*\bexcept(?:ing)?\b|(?: box(?:es)?)?(?: of (?:them|these|the boxes))? but\b)"
    r"(?=[^.;:\n]*\d)",
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

    Thoughts are passed over; the sentence behind the last "answer:" or "answer is" counts alone.
    In it, the last list in brackets counts, or else first lines of numbers alone, or else what
    follows the last colon, where there are any. Numbers of no box are left out. Other numbers of
    free sentences, such as counts, may be taken for boxes.

    Args:
        text: of any model, be it cut or no answer at all.
        count: of boxes.
    """
    said = _conclusion(_THOUGHT.sub(" ", text))
    if excepted := _EXCEPTION.match(said):
        said = said[excepted.end() :]
    elif _REFUSAL.match(said):
        return NumberedAnswer((), True, text)
    named: dict[int, None] = {}
    for first, last in _NUMBER.findall(_numbers_part(said)):
        low, high = int(first), int(last or first)
        named |= dict.fromkeys(range(max(low, 1), min(high, count) + 1))
    absent = not named and _REFUSAL.search(said) is not None
    return NumberedAnswer(tuple(number - 1 for number in named), absent, text)


def _conclusion(text: str) -> str:
    """The sentence that says something behind the last "answer:" or "answer is", or all of it."""
    for part in reversed(_CONCLUSION.split(text)[1:]):
        for sentence in _END.split(part):
            if _NUMBER.search(sentence) or _REFUSAL.search(sentence):
                return sentence
    return text


def _numbers_part(said: str) -> str:
    """The part of a conclusion whose numbers are boxes, all of it where none stands out."""
    lists = [found for found in _LIST.findall(said) if _NUMBER.search(found)]
    if lists:
        return lists[-1]
    plain = _PLAIN.match(said)
    if plain and _NUMBER.search(plain[0]):
        return plain[0]
    behind = _COLON.split(said)[-1]
    return behind if _NUMBER.search(behind) else said
