"""Words of a text that name things, and the objects of a picture that models say them of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmdet.prompts.closed_words import ABSTRACT_NOUNS, DETERMINERS
from llmdet.prompts.noun_phrases import find_noun_phrases

#: What marks of rows and of answers are made of: no word holds any of them.
MARKS = re.compile(r"[\[\]<>]")
_MOST_WORDS = 8  # of a phrase: longer runs are no name of anything
_NAMED = re.compile(r"\[([^\[\]]+)\]\(([0-9 ,]{1,60})\)")
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Phrase:
    """Words of a text that name something."""

    text: str
    span: tuple[int, int]  # [begin, end) in characters of the text


def phrases_of(text: str) -> list[Phrase]:
    """The things that a text names, without articles and numerals, in its order.

    What no box can be drawn around ("the background") is left out.
    """
    found = []
    for begin, end in find_noun_phrases(text):
        words = list(re.finditer(r"\S+", text[begin:end]))
        while words and (words[0][0].lower() in DETERMINERS or not words[0][0][0].isalpha()):
            words.pop(0)
        last = words[-1][0].lower() if words else ""
        if not 1 <= len(words) <= _MOST_WORDS or {last, last.removesuffix("s")} & ABSTRACT_NOUNS:
            continue
        begin += words[0].start()
        if not MARKS.search(text[begin:end]):
            found.append(Phrase(text[begin:end], (begin, end)))
    return found


def distinct(phrases: Sequence[Phrase], most: int) -> list[Phrase]:
    """Phrases that are said for the first time, the first ones of them."""
    first: dict[str, Phrase] = {}
    for phrase in phrases:
        first.setdefault(phrase.text.casefold(), phrase)
    return list(first.values())[:most]


def stems(text: str) -> list[str]:
    """The words of a name, by which it is compared with others: small, in the singular."""
    words: list[str] = _WORD.findall(text.lower())
    return [word[:-1] if word.endswith("s") and len(word) > 3 else word for word in words]


@dataclass(frozen=True)
class MarkedText:
    """What a model said, without the marks, and the objects that its words stand for."""

    text: str
    named: tuple[tuple[tuple[int, int], tuple[int, ...]], ...]  # ([begin, end), objects), in order


def read_marked(text: str, objects: int) -> MarkedText | None:
    """Read ``[the red car](0) stands beside [two dogs](1, 2)``, the way in which models are asked.

    Args:
        text: an answer.
        objects: how many there are.

    Returns:
        None where it names an object that there is not, or has marks that stand for none.
    """
    pieces: list[str] = []
    named: list[tuple[tuple[int, int], tuple[int, ...]]] = []
    end = length = 0
    for found in _NAMED.finditer(text):
        indices = tuple(dict.fromkeys(int(number) for number in re.findall(r"[0-9]+", found[2])))
        words, between = found[1].strip(), text[end : found.start()]
        outside = not all(index < objects for index in indices)
        if outside or not indices or not words or MARKS.search(words) or MARKS.search(between):
            return None
        length += len(between)
        named.append(((length, length + len(words)), indices))
        length += len(words)
        pieces += [between, words]
        end = found.end()
    if MARKS.search(text[end:]):
        return None
    return MarkedText("".join([*pieces, text[end:]]), tuple(named))


def list_objects(texts: Sequence[str]) -> str:
    """Objects by number, as models are told of them."""
    return "\n".join(f"[{number}] {text}" for number, text in enumerate(texts))
