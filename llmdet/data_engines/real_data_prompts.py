"""What the engine of expressions asks: a vision model about an object, a language model for more.

The wordings are ours.
"""

from __future__ import annotations

import re

from llmdet.data_engines.caption_rules import accepted_phrase
from llmdet.data_engines.questions import RejectedAnswerError

SHORT = (
    "This picture shows a {name}. Describe it in a phrase of at most eight words that tells how it "
    "looks, such as 'a chipped blue mug with a spoon'. Answer with the phrase alone."
)
LONG = (
    "A thin red line marks a {name} in this picture. Write one sentence of at most 25 words that "
    "fits it and nothing else here: how it looks, what it does, where it is and what is around it. "
    "Do not mention the red line. Answer with the sentence alone."
)
CAPTION = (
    "A thin red line marks a {name} in this picture. Describe that {name} and the scene around it "
    "in one detailed paragraph. State only what can be seen, and do not mention the red line."
)
MORE = (
    "In a picture there is a {name}. What is known of it: {caption}\n"
    "Somebody calls it: {expression}\n"
    "Write {count} more expressions that fit this {name}: some short, some long, some by its look, "
    "some by what it does or where it is. Use nothing but what is known. Write one expression on "
    "each line, without numbers."
)

MAX_WORDS = 40
_FRAME = re.compile(
    r"\bred(?: thin)?[- ](?:line|lines|box|frame|rectangle|outline|border|square|bounding)",
    re.IGNORECASE,
)
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\(?\d+[.):])\s*")


def accepted_expression(answer: str) -> str:
    """A cleaned expression of an object that a line was drawn around.

    Raises:
        RejectedAnswerError: it must be asked for again.
    """
    cleaned = accepted_phrase(answer, MAX_WORDS)
    if _FRAME.search(cleaned):
        raise RejectedAnswerError("speaks of the frame")
    return cleaned


def accepted_lines(answer: str, count: int) -> list[str]:
    """The first ``count`` usable expressions of an answer that has one on each line.

    Raises:
        RejectedAnswerError: there is none.
    """
    found: list[str] = []
    fault = "empty"
    for line in answer.splitlines():
        try:
            expression = accepted_expression(_BULLET.sub("", line))
        except RejectedAnswerError as error:
            fault = str(error) if line.strip() else fault
        else:
            found.append(expression)
    if not found:
        raise RejectedAnswerError(fault)
    return list(dict.fromkeys(found))[:count]
