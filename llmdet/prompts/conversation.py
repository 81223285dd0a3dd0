"""Conversations with typed slots: what a language model reads and learns to say about an image.

A turn's text carries marks where features of the image stand: ``<image>`` for the next image of
the sample, ``<region>`` for its next region, ``<region:3>`` for region number 3, counted from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MARK = re.compile(r"<(image|region)(?::(\d+))?>")


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: str  # "system", "user" or "assistant"
    text: str  # with marks for images and regions
    learned: bool = False  # whether the language model learns to say it


@dataclass(frozen=True)
class Mark:
    """One mark of a conversation, and what it stands for."""

    kind: str  # "image" or "region"
    index: int  # which image or region of the sample


@dataclass(frozen=True)
class Conversation:
    """Turns about one sample, in the order in which they are said."""

    turns: tuple[Turn, ...]

    @property
    def marks(self) -> tuple[Mark, ...]:
        """What the marks of all turns stand for, in order."""
        return tuple(mark for turn in number_marks(self) for mark in turn if isinstance(mark, Mark))


def number_marks(conversation: Conversation) -> Iterator[tuple[str | Mark, ...]]:
    """Each turn as pieces of text and marks; marks without a number count up, kind by kind."""
    following = {"image": 0, "region": 0}
    for turn in conversation.turns:
        pieces: list[str | Mark] = []
        end = 0
        for found in _MARK.finditer(turn.text):
            kind, number = found.groups()
            index = following[kind] if number is None else int(number)
            following[kind] = index + 1
            pieces += [turn.text[end : found.start()], Mark(kind, index)]
            end = found.end()
        yield (*pieces, turn.text[end:])


def ask(prompt: str, answer: str | None = None) -> Conversation:
    """One question, and the answer that the language model learns to give, if there is one."""
    question = Turn("user", prompt)
    if answer is None:
        return Conversation((question,))
    return Conversation((question, Turn("assistant", answer, learned=True)))
