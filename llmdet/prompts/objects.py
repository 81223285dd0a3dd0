"""Candidate objects by number, in questions and answers (ChatRex, arXiv 2411.18363, 3.2; RexSeek).

The first of an image's candidate boxes is ``<obj0>``. An answer names boxes behind the phrase that
they are: ``<ground>red car</ground><objects><obj1><obj4></objects>``, and says in a sentence that
none of them is.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from llmdet.errors import ConfigError
from llmdet.prompts.conversation import Conversation, Slot, split_at_marks

#: Around a phrase and around its objects: of the released models, and as their papers print them.
DELIMITERS = {
    "ground": ("<ground>", "</ground>", "<objects>", "</objects>"),
    "g": ("<g>", "</g>", "<o>", "</o>"),
}
#: What is said of that which no candidate is.
ABSENT = "There is no such thing in this image."
#: Kinds of pieces of an answer: the four delimiters in their order, objects, and everything else.
OPEN_PHRASE, CLOSE_PHRASE, OPEN_OBJECTS, CLOSE_OBJECTS, OBJECT, TEXT = range(6)


@dataclass(frozen=True)
class Piece:
    """A part of an answer, in the order in which it was said."""

    kind: int  # one of the kinds above
    text: str
    probability: float | None = None  # of its token; None in answers only known as text


@dataclass(frozen=True)
class GroundedPhrase:
    """A phrase and the M candidates that it names."""

    phrase: str
    indices: tuple[int, ...]  # M, in the order in which they were named
    scores: tuple[float, ...] = ()  # M, the probability of each index; () where it is not known


@dataclass(frozen=True)
class ObjectAnswer:
    """What was said about candidates."""

    text: str  # with its marks
    phrases: tuple[GroundedPhrase, ...]  # in the order of the text, each phrase once

    def __str__(self) -> str:
        return self.text

    @property
    def absent(self) -> bool:
        """Whether it says that there is no such thing."""
        return ABSENT.rstrip(".").casefold() in self.text.casefold()


@dataclass(frozen=True)
class ObjectGrammar:
    """How a model writes about candidates; called with a learned text, it writes it its way.

    Attributes:
        delimiters: a name of :data:`DELIMITERS`, or the four by themselves.
        count: most candidates of an image.
    """

    delimiters: str | tuple[str, str, str, str] = "ground"
    count: int = 100
    marks: tuple[str, str, str, str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        given = self.delimiters
        marks = DELIMITERS.get(given, ()) if isinstance(given, str) else tuple(given)
        if len(set(marks)) != 4 or not all(marks):
            raise ConfigError(
                f"delimiters={given!r}: give four different ones, or a name: "
                f"{', '.join(DELIMITERS)}"
            )
        if self.count < 1:
            raise ConfigError(f"count={self.count}: a model names at least one object")
        object.__setattr__(self, "marks", marks)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens that a language model gets: its objects, then the four delimiters."""
        return (*map(object_mark, range(self.count)), *self.marks)

    def __call__(self, text: str) -> str:
        """A text with the delimiters of any family, written with these."""
        for family in DELIMITERS.values():
            for theirs, ours in zip(family, self.marks, strict=True):
                text = text.replace(theirs, ours)
        return text

    def write(self, objects: Mapping[str, Sequence[int]]) -> str:
        """The answer to a question for one or more things.

        Args:
            objects: what was asked for -> the candidates that it is; none where it is absent, of
                which nothing is said unless all are.
        """
        lines = [self.write_phrase(phrase, found) for phrase, found in objects.items() if found]
        return "\n".join(lines) or ABSENT

    def write_phrase(self, phrase: str, indices: Iterable[int]) -> str:
        """A phrase with its candidates, the first one first: their order is no guess."""
        opened, closed, before, behind = self.marks
        named = "".join(map(object_mark, sorted(set(indices))))
        return f"{opened}{phrase}{closed}{before}{named}{behind}"

    def parse(self, text: str, candidates: int | None = None) -> ObjectAnswer:
        """What any text says about candidates, with the delimiters of any family.

        Args:
            text: an answer, be it cut, malformed or no answer at all.
            candidates: how many there are; an index behind them is left out.
        """
        there = range(self.count if candidates is None else min(candidates, self.count))
        return ObjectAnswer(text, self.read(_split(text, self.marks), there))

    @staticmethod
    def read(pieces: Iterable[Piece], candidates: Container[int]) -> tuple[GroundedPhrase, ...]:
        """The phrases of an answer that name candidates; of one that is said twice, the first.

        Args:
            pieces: the answer.
            candidates: indices that there are; others are left out.
        """
        found: dict[str, GroundedPhrase] = {}
        for phrase, named in _phrases(pieces):
            scores: dict[int, float | None] = {}
            for piece in named:
                index = _index(piece.text)
                if index in candidates:
                    scores.setdefault(index, piece.probability)
            if phrase and scores:
                known = tuple(score for score in scores.values() if score is not None)
                found.setdefault(phrase, GroundedPhrase(phrase, tuple(scores), known))
        return tuple(found.values())


def object_mark(index: int) -> str:
    """The mark of a candidate, counted from 0."""
    return f"<obj{index}>"


def list_candidates(count: int) -> str:
    """The candidates of an image as a model reads them: the mark of each and its region."""
    return "".join(f"{object_mark(index)}<region:{index}>" for index in range(count))


def with_candidates(conversation: Conversation, count: int) -> Conversation:
    """The conversation with the image and its candidates in front of the first question.

    Marks of regions in its turns become those of candidates, which are the same regions.
    """
    split = split_at_marks([turn.text for turn in conversation.turns])
    texts = ["".join(_without_slot(piece) for piece in pieces) for pieces in split]
    turns = [replace(turn, text=text) for turn, text in zip(conversation.turns, texts, strict=True)]
    first = next(number for number, turn in enumerate(turns) if turn.role == "user")
    candidates = f"{list_candidates(count)}\n" if count else ""
    elsewhere = "image" in conversation.kinds and not texts[first].startswith("<image>")
    question = texts[first].removeprefix("<image>").removeprefix("\n")
    image = "" if elsewhere else "<image>\n"
    turns[first] = replace(turns[first], text=f"{image}{candidates}{question}")
    return Conversation(tuple(turns))


def _without_slot(piece: str | Slot) -> str:
    if isinstance(piece, str):
        return piece
    return object_mark(piece.index) if piece.kind == "region" else f"<{piece.kind}>"


def _index(mark: str) -> int:
    return int(mark.removeprefix("<obj").removesuffix(">"))


@lru_cache(maxsize=16)
def _pattern(marks: tuple[str, ...]) -> re.Pattern[str]:
    known = dict.fromkeys((*marks, *(mark for family in DELIMITERS.values() for mark in family)))
    # Longer numbers are no index of anything, and Python refuses to read the longest.
    return re.compile(rf"(<obj[0-9]{{1,9}}>|{'|'.join(map(re.escape, known))})")


def _split(text: str, marks: tuple[str, ...]) -> Iterator[Piece]:
    kinds = {mark: n for family in (*DELIMITERS.values(), marks) for n, mark in enumerate(family)}
    for number, part in enumerate(_pattern(marks).split(text)):
        if part:
            yield Piece(kinds.get(part, OBJECT) if number % 2 else TEXT, part)


def _phrases(pieces: Iterable[Piece]) -> Iterator[tuple[str, list[Piece]]]:
    """Each phrase that has a list of objects, also one that an answer ends in the middle of."""
    words: list[str] = []
    named: list[Piece] = []
    inside = CLOSE_OBJECTS  # the delimiter that was last passed
    for piece in pieces:
        if piece.kind == OPEN_PHRASE or (piece.kind == CLOSE_OBJECTS and inside == OPEN_OBJECTS):
            if inside == OPEN_OBJECTS:
                yield "".join(words).strip(), named
            words, named, inside = [], [], piece.kind
        elif piece.kind == CLOSE_PHRASE and inside == OPEN_PHRASE:
            inside = CLOSE_PHRASE
        elif piece.kind == OPEN_OBJECTS and inside in (OPEN_PHRASE, CLOSE_PHRASE):
            inside = OPEN_OBJECTS
        elif piece.kind == OBJECT and inside == OPEN_OBJECTS:
            named.append(piece)
        elif piece.kind in (OBJECT, TEXT) and inside == OPEN_PHRASE:
            words.append(piece.text)
        elif inside == CLOSE_PHRASE and piece.text.strip():
            inside = CLOSE_OBJECTS  # a phrase without objects
    if inside == OPEN_OBJECTS:
        yield "".join(words).strip(), named
