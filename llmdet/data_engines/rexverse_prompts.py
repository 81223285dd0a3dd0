"""What the Rexverse engine asks, and which answers it takes (ChatRex, arXiv 2411.18363, 4.1).

The wordings are ours.
"""

from __future__ import annotations

import re

from llmdet.data_engines.caption_rules import clean_phrase, phrase_fault
from llmdet.data_engines.object_words import MARKS, read_marked
from llmdet.data_engines.questions import RejectedAnswerError
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

_VERDICT = re.compile(r"^\W*match\W*\b(yes|no)\b", re.IGNORECASE | re.MULTILINE)
_EXPRESSION = re.compile(r"^\W*expression\W*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_TURNS = re.compile(
    r"^\W*Q:\s*(?P<question>.+?)\s*^\W*A:\s*(?P<answer>.+?)\s*(?=^\W*Q:|\Z)",
    re.MULTILINE | re.DOTALL,
)
_GRAMMAR = ObjectGrammar()


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
    if fault is None and MARKS.search(cleaned):
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
        if grounded and not MARKS.search(question):
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
    said = read_marked(text, objects)
    if said is None or not said.named:
        return ""
    pieces, end = [], 0
    for (begin, stop), indices in said.named:
        pieces += [said.text[end:begin], _GRAMMAR.write_phrase(said.text[begin:stop], indices)]
        end = stop
    return "".join([*pieces, said.text[end:]])
