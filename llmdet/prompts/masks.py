"""Words that have masks, in learned answers and in what a model says (GLaMM, arXiv 2311.03356).

In rows an answer names the region whose mask belongs to a phrase: ``<p>a man</p><mask:0> walks
<p>a dog</p><mask:1>``, or ``It is <mask>.`` for the next region that no mark has named. A model
says one token for each mask, whatever the region: ``<p> a man </p> [SEG] walks ...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

from llmdet.errors import ConfigError
from llmdet.prompts.conversation import Turn

_MARK = re.compile(r"<mask(?::(\d+))?>")
_PHRASE_AND_MARK = re.compile(r"<p>\s*(.*?)\s*</p>\s*(?=<mask(?::\d+)?>)", re.DOTALL)


@dataclass(frozen=True)
class MaskedText:
    """What a model said, taken apart."""

    text: str  # with its marks
    caption: str  # without them
    phrases: tuple[str, ...]  # M, the words in front of each mask; "" where it has none
    marked: str = ""  # as rows write it, <mask> for each mask

    def as_row(self, first: int = 0) -> str:
        """As rows write it: its masks are those of regions ``first``, ``first + 1`` and so on."""
        numbers = count(first)
        return _MARK.sub(lambda _: f"<mask:{next(numbers)}>", self.marked)


@dataclass(frozen=True)
class MaskGrammar:
    """How a model writes that something has a mask; called with a learned text, it writes it so.

    Attributes:
        token: stands for a mask.
        opened, closed: around the words whose mask follows.
    """

    token: str = "[SEG]"
    opened: str = "<p>"
    closed: str = "</p>"
    pattern: re.Pattern[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not all(self.tokens) or len(set(self.tokens)) != 3:
            raise ConfigError(f"{self.tokens}: give three different marks")
        marks = "|".join(map(re.escape, self.tokens))
        object.__setattr__(self, "pattern", re.compile(f"({marks})"))

    @property
    def tokens(self) -> tuple[str, str, str]:
        """The tokens that a language model gets."""
        return self.token, self.opened, self.closed

    def __call__(self, text: str) -> str:
        """A learned text with this model's tokens in place of the marks of rows."""
        text = _PHRASE_AND_MARK.sub(rf"{self.opened} \1 {self.closed} ", text)
        return _MARK.sub(lambda _: self.token, text)

    def parse(self, text: str) -> MaskedText:
        """What any text says: masks are in the order of its tokens, malformed phrases are words."""
        phrases: list[str] = []
        words: list[str] = []  # of the caption
        marked: list[str] = []
        inside: list[str] | None = None  # of the phrase that is open
        phrase = ""
        for piece in self.pattern.split(text):
            marked.append(self._marks.get(piece) or _MARK.sub("", piece))
            if piece == self.opened:
                inside = []
            elif piece == self.closed:
                phrase, inside = "".join(inside or ()).strip(), None
            elif piece == self.token:
                phrases.append("".join(inside).strip() if inside else phrase)
                phrase, inside = "", None
            else:
                words.append(piece)
                if inside is not None:
                    inside.append(piece)
        caption = " ".join(" ".join(words).split())
        return MaskedText(
            text,
            re.sub(r"\s+([.,;:!?])", r"\1", caption),
            tuple(phrases),
            _PHRASE_AND_MARK.sub(r"<p>\1</p>", "".join(marked)),
        )

    @property
    def _marks(self) -> dict[str, str]:
        """This model's tokens -> marks of rows."""
        return {self.token: "<mask>", self.opened: "<p>", self.closed: "</p>"}


def read_as_glamm(said: str, token: str = "[SEG]") -> tuple[str, tuple[str, ...]]:
    """Caption and phrases that GLaMM's own evaluation reads from what its model says.

    It differs from :meth:`MaskGrammar.parse` where answers are odd: phrases need no mask, plain
    text between < and > is lost, line breaks join words, and quotes around all of it are taken off.

    Args:
        said: the whole conversation as text, special tokens included.
        token: stands for a mask.
    """
    text = said.replace("\n", "").replace("  ", " ").rpartition("ASSISTANT: ")[2]
    phrases = tuple(phrase.strip() for phrase in re.findall("<p>(.*?)</p>", text))
    words = re.sub("<.*?>", "", text).replace(token, "").split()
    return " ".join(words).strip("'").strip(), phrases


def ask_as_glamm(instruction: str) -> str:
    """A question as GLaMM's evaluation cleans it: ``&`` that begins no entity is ``&amp;``."""
    kept = re.sub(r"&(?!(?:#\d+|#[xX][0-9a-fA-F]+|\w+);)", "&amp;", instruction)
    return kept.replace("&lt;", "<").replace("&gt;", ">")


def masks_of_turns(texts: Iterable[str]) -> list[tuple[int, ...]]:
    """The regions whose masks each text of a conversation shows, in the order of its marks.

    A mark without a number stands for the region behind that of the mark before it.
    """
    found: list[tuple[int, ...]] = []
    following = 0
    for text in texts:
        of_text = []
        for mark in _MARK.finditer(text):
            index = following if mark.group(1) is None else int(mark.group(1))
            following = index + 1
            of_text.append(index)
        found.append(tuple(of_text))
    return found


def marked_regions(turns: Sequence[Turn]) -> tuple[int, ...]:
    """The regions whose masks are learned, in the order in which they are said."""
    of_turns = masks_of_turns(turn.text for turn in turns)
    pairs = zip(turns, of_turns, strict=True)
    return tuple(index for turn, indices in pairs if turn.learned for index in indices)


def splice_masks(caption: str, spans: Sequence[tuple[int, int]]) -> tuple[str, tuple[int, ...]]:
    """A caption whose phrases are marked as those of masks, as rows write it.

    Args:
        caption: plain text.
        spans: (begin, end) in characters of each phrase, in any order; phrase number n is of
            region n.

    Returns:
        The text, and the numbers of phrases that were left out: what lies outside the caption, is
        blank or overlaps one before it has no place in it.
    """
    pieces: list[str] = []
    left_out: list[int] = []
    end = 0
    for number in sorted(range(len(spans)), key=lambda n: (spans[n][0], -spans[n][1])):
        begin, stop = spans[number]
        inside = max(end, 0) <= begin < stop <= len(caption)
        if not inside or not caption[begin:stop].strip():
            left_out.append(number)
            continue
        pieces += [caption[end:begin], f"<p>{caption[begin:stop].strip()}</p><mask:{number}>"]
        end = stop
    return "".join([*pieces, caption[end:]]), tuple(left_out)


def find_phrases(caption: str, phrases: Sequence[str]) -> list[tuple[int, int] | None]:
    """Where phrases stand in a caption, in whole words of any case; None where they do not.

    A phrase that is given several times is found at one place after the other, and at the last of
    them where there are no more.
    """
    taken: dict[str, int] = {}
    found: list[tuple[int, int] | None] = []
    for phrase in phrases:
        words = phrase.strip()
        pattern = rf"(?<!\w){re.escape(words)}(?!\w)"
        places = [match.span() for match in re.finditer(pattern, caption, re.IGNORECASE)]
        number = taken[words.lower()] = taken.get(words.lower(), -1) + 1
        found.append(places[min(number, len(places) - 1)] if words and places else None)
    return found


def without_quotes(caption: str) -> tuple[str, int]:
    """A caption without quotation marks and blanks around it, and how many characters went first.

    One mark that has no partner belongs to the words.
    """
    text, removed = caption.strip(), len(caption) - len(caption.lstrip())
    while len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        removed += 1 + len(text[1:]) - len(text[1:].lstrip())
        text = text[1:-1].strip()
    return text, removed
