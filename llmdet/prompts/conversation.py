"""Conversations with typed slots: what a language model reads and learns to say about an image.

A turn's text carries marks where features of the image stand: ``<image>`` for the next image of
the sample, ``<region>`` for its next region, ``<region:3>`` for region number 3, counted from 0.
Tokenised, each mark is a slot: positions that features of the image will fill.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

#: The questions of the released models.
DESCRIBE_IMAGE, DESCRIBE_REGION = (
    "Describe the image in detail.",
    "Describe the region in a phrase.",
)
IGNORE_INDEX = -100
_MARK = re.compile(r"<(image|region)(?::(\d+))?>")


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: str  # "system", "user" or "assistant"
    text: str  # with marks for images and regions
    learned: bool = False  # whether the language model learns to say it


@dataclass(frozen=True)
class Slot:
    """Positions of a conversation that features of one image or region fill."""

    kind: str  # "image" or "region"
    index: int  # which image or region of the sample
    start: int = 0  # first position
    length: int = 0  # how many; 0 before the conversation is tokenised


@dataclass(frozen=True)
class ConversationSettings:
    """What workers and model must agree on to make the same token ids and slots."""

    tokenizer: str  # folder or hub id
    slots: tuple[tuple[str, int], ...]  # (kind, length) of every kind of mark that is read
    max_length: int  # most tokens of a conversation, slots included
    system: str | None = "You are a helpful assistant."  # None for templates without such a turn
    added_tokens: tuple[str, ...] = ()  # of outputs, beyond the tokenizer's vocabulary
    write: Callable[[str], str] = str  # how an output writes the text of a learned turn
    any_kinds: bool = False  # whether a conversation may lack marks of some of these kinds
    template: str | None = None  # one of TEMPLATES, or a template's text; None: the tokenizer's
    answers_only: bool = False  # whether the template around learned turns is not learned
    #: (kind, text before, text behind) of marks that are written between words, as GLaMM's
    #: ``<im_start><image><im_end>``.
    around: tuple[tuple[str, str, str], ...] = ()
    #: As slow tokenizers of transformers before 4.34 had it: no blanks beside added tokens and
    #: regions, and one in front of each piece of text between them.
    legacy_blanks: bool = False


@dataclass(frozen=True, eq=False)
class TokenizedConversation:
    """A conversation of T tokens."""

    ids: np.ndarray  # [T] int64, the pad id in slots
    labels: np.ndarray  # [T] int64, IGNORE_INDEX where nothing is learned
    slots: tuple[Slot, ...]  # in the order of their positions
    settings: ConversationSettings
    cut: bool = False  # whether it was longer than the settings' max_length


@dataclass(frozen=True)
class Conversation:
    """Turns about one sample, in the order in which they are said."""

    turns: tuple[Turn, ...]
    tokens: TokenizedConversation | None = field(default=None, compare=False)  # made in a worker

    @property
    def slots(self) -> tuple[Slot, ...]:
        """What the marks of all turns stand for, in order, without positions."""
        split = split_at_marks([turn.text for turn in self.turns])
        return tuple(piece for turn in split for piece in turn if isinstance(piece, Slot))

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of its marks."""
        return frozenset(slot.kind for slot in self.slots)


def ask(prompt: str, answer: str | None = None) -> Conversation:
    """A question, and the answer that the language model learns to give, if there is one."""
    question = Turn("user", prompt)
    if answer is None:
        return Conversation((question,))
    return Conversation((question, Turn("assistant", answer, learned=True)))


def with_image(conversation: Conversation, introduction: str = "<image>\n") -> Conversation:
    """The conversation with the image on a line of its own in front of the first question.

    One that marks the place of the image stays as it is.

    Args:
        conversation: with a question.
        introduction: what stands in front instead, with the mark of the image.
    """
    if "image" in conversation.kinds:
        return conversation
    turns = conversation.turns
    first = next(number for number, turn in enumerate(turns) if turn.role == "user")
    question = replace(turns[first], text=f"{introduction}{turns[first].text}")
    return Conversation((*turns[:first], question, *turns[first + 1 :]))


def ask_of_image(answer: str | None = None, prompt: str = DESCRIBE_IMAGE) -> Conversation:
    """A question about the image, which stands in front unless the question marks its place."""
    return with_image(ask(prompt, answer))


def ask_of_region(index: int, answer: str | None = None) -> Conversation:
    """What region number ``index`` is."""
    return ask(f"<region:{index}>\n{DESCRIBE_REGION}", answer)


def split_at_marks(texts: Sequence[str]) -> list[list[str | Slot]]:
    """Each text as pieces of text and slots without positions.

    A mark without a number stands for the one behind the mark of its kind before it.
    """
    following: dict[str, int] = {}
    split = []
    for text in texts:
        pieces: list[str | Slot] = []
        end = 0
        for found in _MARK.finditer(text):
            kind, number = found.groups()
            index = following.get(kind, 0) if number is None else int(number)
            following[kind] = index + 1
            pieces += [text[end : found.start()], Slot(kind, index)]
            end = found.end()
        split.append([*pieces, text[end:]])
    return split


def with_numbers(texts: Sequence[str]) -> list[str]:
    """Texts that follow one another, in which every mark says which one it stands for."""
    return ["".join(map(_numbered, pieces)) for pieces in split_at_marks(texts)]


def _numbered(piece: str | Slot) -> str:
    return piece if isinstance(piece, str) else f"<{piece.kind}:{piece.index}>"
