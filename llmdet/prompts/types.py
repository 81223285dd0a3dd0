"""What to look for in an image, and the texts and tokens that say so to the text encoder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from llmdet.errors import ConfigError

#: [start, end) characters of a text.
Span = tuple[int, int]


#: Text before a name, the name as it is written, and text behind it.
Affixes = tuple[str, str, str]


@dataclass(frozen=True)
class Classes:
    """Class names, each its own label in the order given; equal names are kept.

    A class without a word, as some data sets have, keeps its label, is not written, and is found
    nowhere.
    """

    names: tuple[str, ...]  # K, cleaned
    #: K (prefix, name, suffix), None for a class that is not written; (): as named.
    written: tuple[Affixes | None, ...] = ()
    #: V x K: other ways of writing them, whose features are averaged; None where a class has fewer.
    variants: tuple[tuple[Affixes | None, ...], ...] = ()

    def select(self, labels: Iterable[int]) -> Classes:
        """The classes of some labels, in the order of these."""
        chosen = tuple(labels)
        written = tuple(self.written[label] for label in chosen) if self.written else ()
        variants = tuple(tuple(way[label] for label in chosen) for way in self.variants)
        return Classes(tuple(self.names[label] for label in chosen), written, variants)


@dataclass(frozen=True)
class Sentence:
    """A sentence; whatever its noun phrases name is looked for."""

    text: str


@dataclass(frozen=True)
class Spans:
    """A text and which of its characters name each label."""

    text: str
    spans: tuple[tuple[Span, ...], ...]  # K lists; () for a label that is not in the image


@dataclass(frozen=True)
class Expression:
    """A referring expression; what it describes as a whole is looked for."""

    text: str


#: What counts as an object: parts and things of any size, or things as data sets name them.
GRANULARITIES = ("fine", "coarse")


@dataclass(frozen=True)
class Expressions:
    """Descriptions, each its own label and looked for by itself, in a prompt of its own."""

    texts: tuple[str, ...]  # K


@dataclass(frozen=True)
class AnyObject:
    """No name at all: whatever a detector of words takes for an object in the first of its stages.

    Raises:
        ConfigError: there is no such granularity.
    """

    word: str = "object"  # the text that the detector reads, and the name of what is found
    granularity: str | None = None  # of GRANULARITIES, for a detector that has learned them

    def __post_init__(self) -> None:
        if self.granularity is not None:
            check_granularity(self.granularity, "granularity")


def check_granularity(value: str, where: str) -> None:
    """Raise a ConfigError unless the value, which stands at ``where``, is a granularity."""
    if value not in GRANULARITIES:
        raise ConfigError(f"{where}={value!r}; choose one of {', '.join(GRANULARITIES)}")


Prompt = Classes | Sentence | Spans | Expression | Expressions | AnyObject


@dataclass(frozen=True)
class PromptText:
    """One text for the text encoder and where in it the things to be detected are named."""

    text: str  # exactly what the tokenizer gets
    entities: tuple[str, ...]  # K names or phrases, in the order of labels
    spans: tuple[tuple[Span, ...], ...]  # K lists of [start, end) character spans in text
    label_offset: int = 0  # label of entity 0 in the whole class list, for chunks
    variants: tuple[PromptText, ...] = ()  # other ways of saying it, whose features are averaged


@dataclass(frozen=True)
class TokenizedPrompt(PromptText):
    """A text with its tokens; texts decide equality, since tokens follow from them."""

    variants: tuple[TokenizedPrompt, ...] = ()
    ids: np.ndarray = field(kw_only=True, compare=False)  # [L] int64, special tokens included
    #: [K, L] bool, the tokens of each entity; never a special one.
    token_map: np.ndarray = field(kw_only=True, compare=False)
