"""What the Rexverse engine asks, and which answers it takes (ChatRex, arXiv 2411.18363, 4.1).

The wordings are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmdet.data_engines.caption_rules import clean_phrase, phrase_fault
from llmdet.data_engines.questions import RejectedAnswerError
from llmdet.prompts.closed_words import ABSTRACT_NOUNS, DETERMINERS
from llmdet.prompts.noun_phrases import find_noun_phrases
from llmdet.prompts.objects import ObjectGrammar

SCREEN = (
    "Does this picture show a scene with objects, and not mainly text, such as a web page, a "
    "document, a screenshot or an advertisement? Is it free of nudity and violence? Answer yes if "
    "both are so, else no."
)
CAPTION = (
    "Describe this picture in one sentence of at most 30 words that names its main objects. State "
    "only what can be seen."
)
DESCRIBE = (
    "This is a part of a picture of which is known: {caption}\n"
    "Describe the {phrase} at its centre in one or two sentences: how it looks, its state and what "
    "it does. State only what can be seen; do not guess."
)
CHECK = (
    'A detector looked for "{phrase}" in a picture. What it found was described by someone who '
    "saw nothing else of the picture:\n{description}\n"
    "Is that such a thing? If so, also write an expression of {least} to {most} words that tells "
    "it from others of its kind and says nothing that the description does not say. Answer in two "
    "lines:\n"
    "Match: yes or no\n"
    "Expression: the expression, or none"
)
CONVERSE = (
    "This is known of a picture: {caption}\n"
    "Its objects by number:\n{objects}\n"
    "Write {count} questions that somebody who looks at the picture may ask about it and its "
    "objects, and answer them. Say nothing that is not known. In an answer, words that stand for "
    "objects are in square brackets, and their numbers behind them in round ones: [the red car](0) "
    "stands beside [two dogs](1, 2). Questions have no brackets. Begin each question with Q: and "
    "each answer with A:."
)

_MOST_WORDS = 8  # of a phrase: longer runs are no name of anything
_VERDICT = re.compile(r"^\W*match\W*\b(yes|no)\b", re.IGNORECASE | re.MULTILINE)
_EXPRESSION = re.compile(r"^\W*expression\W*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_TURNS = re.compile(
    r"^\W*Q:\s*(?P<question>.+?)\s*^\W*A:\s*(?P<answer>.+?)\s*(?=^\W*Q:|\Z)",
    re.MULTILINE | re.DOTALL,
)
_NAMED = re.compile(r"\[([^\[\]]+)\]\(([0-9 ,]{1,60})\)")
_FOREIGN = re.compile(r"[\[\]<>]")
_GRAMMAR = ObjectGrammar()


@dataclass(frozen=True)
class Phrase:
    """Words of a caption that name something."""

    text: str
    span: tuple[int, int]  # [begin, end) in characters of the caption


def phrases_of(caption: str, most: int) -> list[Phrase]:
    """The things that a caption names, without articles and numerals, each once.

    What no box can be drawn around ("the background") is left out.

    Args:
        caption: a sentence.
        most: of them, the first ones.
    """
    found: dict[str, Phrase] = {}
    for begin, end in find_noun_phrases(caption):
        words = list(re.finditer(r"\S+", caption[begin:end]))
        while words and (words[0][0].lower() in DETERMINERS or not words[0][0][0].isalpha()):
            words.pop(0)
        last = words[-1][0].lower() if words else ""
        if not 1 <= len(words) <= _MOST_WORDS or {last, last.removesuffix("s")} & ABSTRACT_NOUNS:
            continue
        text = caption[begin + words[0].start() : end]
        if not _FOREIGN.search(text):
            span = (begin + words[0].start(), end)
            found.setdefault(text.casefold(), Phrase(text, span))
    return list(found.values())[:most]


def accepted_yes_or_no(answer: str) -> bool:
    """Whether an answer says yes.

    Raises:
        RejectedAnswerError: it says neither.
    """
    words = re.findall(r"[a-z]+", answer.lower())[:1]
    if words not in (["yes"], ["no"]):
        raise RejectedAnswerError("neither yes nor no")
    return words == ["yes"]


def accepted_verdict(answer: str, least: int, most: int) -> str:
    """The expression of a region that is what was looked for; "" where it is not.

    Args:
        answer: to :data:`CHECK`.
        least: words of the expression.
        most: words of the expression.

    Raises:
        RejectedAnswerError: it must be asked for again.
    """
    verdict, expression = _VERDICT.search(answer), _EXPRESSION.search(answer)
    if verdict is None:
        raise RejectedAnswerError("without a verdict")
    if verdict[1].lower() == "no":
        return ""
    cleaned = clean_phrase(expression[1]) if expression else ""
    fault = phrase_fault(cleaned, cleaned, most)
    if fault is None and len(cleaned.split()) < least:
        fault = "too short"
    if fault is None and _FOREIGN.search(cleaned):
        fault = "holds a mark"
    if fault is not None:
        raise RejectedAnswerError(fault)
    return cleaned


def accepted_dialogue(answer: str, objects: int, most: int) -> list[tuple[str, str]]:
    """Questions and answers, the latter with object indices as rows have them.

    Pairs that name no object, or one that there is not, are left out.

    Args:
        answer: to :data:`CONVERSE`.
        objects: how many there are.
        most: pairs.

    Raises:
        RejectedAnswerError: no pair is left.
    """
    pairs = []
    for turn in _TURNS.finditer(answer):
        question, said = (" ".join(turn[name].split()) for name in ("question", "answer"))
        grounded = ground(said, objects)
        if grounded and not _FOREIGN.search(question):
            pairs.append((question, grounded))
    if not pairs:
        raise RejectedAnswerError("without a grounded question and answer")
    return pairs[:most]


def ground(text: str, objects: int) -> str:
    """Text with ``[words](0, 2)`` as words with object indices; "" where it has none or wrong ones.

    Args:
        text: an answer.
        objects: how many there are.
    """
    pieces: list[str] = []
    end = 0
    for named in _NAMED.finditer(text):
        indices = [int(number) for number in re.findall(r"[0-9]+", named[2])]
        words = named[1].strip()
        outside = not all(index < objects for index in indices)
        if outside or not indices or not words or _FOREIGN.search(words):
            return ""
        pieces += [text[end : named.start()], _GRAMMAR.write_phrase(words, indices)]
        end = named.end()
    between = "".join([*pieces[::2], text[end:]])
    return "" if not pieces or _FOREIGN.search(between) else "".join([*pieces, text[end:]])


def list_objects(texts: Sequence[str]) -> str:
    """Objects as :data:`CONVERSE` lists them."""
    return "\n".join(f"[{number}] {text}" for number, text in enumerate(texts))
