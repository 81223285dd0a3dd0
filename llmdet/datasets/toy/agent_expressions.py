"""Expressions of toy objects: their words, their truth, and six ways in which they can be wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from llmdet.datasets.toy.captions import PLACES, SIDES, position, relation
from llmdet.datasets.toy.scene import SIZES, Scene
from llmdet.datasets.toy.vocabulary import COLOURS, SHAPES, Kind

Value = TypeVar("Value")

PLACE_WORDS = tuple(place for row in PLACES for place in row)
#: What an expression says; each can be wrong, and all of it can be another object's.
ASPECTS = ("colour", "shape", "size", "place", "relation")
BREAKS = (*ASPECTS, "object")

_WORDS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": tuple(SHAPES),
    "size": tuple(SIZES),
    "place": PLACE_WORDS,
}
#: An object as it is named behind a relation.
_KIND = rf"an? ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_EXPRESSION = re.compile(
    rf"(?:({'|'.join(SIZES)}) )?({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
    rf"(?: ({'|'.join(PLACE_WORDS)}))?(?:,? ({'|'.join(SIDES)}) {_KIND})?"
)


@dataclass(frozen=True)
class Expression:
    """What is said of an object, e.g. ``small red circle at the top, left of a blue square``."""

    colour: str
    shape: str
    size: str | None = None
    place: str | None = None  # one of PLACE_WORDS
    relation: tuple[str, Kind] | None = None  # one of SIDES, and to what

    def __str__(self) -> str:
        words = [self.size, self.colour, self.shape, self.place]
        text = " ".join(word for word in words if word)
        if self.relation is None:
            return text
        word, kind = self.relation
        return f"{text}{',' if self.place else ''} {word} {with_article(kind)}"

    @classmethod
    def parse(cls, text: str) -> Expression | None:
        """The expression that a text is, None where it is none of this world."""
        found = _EXPRESSION.fullmatch(text.strip().lower())
        if found is None:
            return None
        size, colour, shape, place, word, *kind = found.groups()
        return cls(colour, shape, size, place, (word, Kind(*kind)) if word else None)

    @property
    def said(self) -> tuple[str, ...]:
        """The aspects that it speaks of."""
        return tuple(aspect for aspect in ASPECTS if getattr(self, aspect) is not None)


@dataclass(frozen=True)
class Facts:
    """What is true of an object, or known of it: then with None and without relations."""

    colour: str | None = None
    shape: str | None = None
    size: str | None = None
    place: str | None = None
    relations: frozenset[tuple[str, Kind]] = frozenset()

    def wrong(self, expression: Expression) -> tuple[str, ...]:
        """The aspects of an expression that these facts contradict."""
        return tuple(a for a in expression.said if self._fits(expression, a) is False)

    def unknown(self, expression: Expression) -> tuple[str, ...]:
        """The aspects of an expression of which these facts say nothing."""
        return tuple(a for a in expression.said if self._fits(expression, a) is None)

    def _fits(self, expression: Expression, aspect: str) -> bool | None:
        if aspect != "relation":
            known = getattr(self, aspect)
            return None if known is None else known == getattr(expression, aspect)
        assert expression.relation is not None
        if expression.relation in self.relations:
            return True
        _, kind = expression.relation
        return False if any(kind == other for _, other in self.relations) else None


def with_article(kind: Kind) -> str:
    """``a red circle``, ``an orange star``."""
    return f"{'an' if kind.colour[0] in 'aeiou' else 'a'} {kind.name}"


def facts_of(scene: Scene, index: int) -> Facts:
    """All that is true of an object of a scene."""
    item = scene.items[index]
    relations = set()
    for number, other in enumerate(scene.items):
        word = relation(item.box, other.box) if number != index else None
        if word is not None:
            relations.add((word, other.kind))
    return Facts(
        item.kind.colour,
        item.kind.shape,
        item.size,
        position(item.box, scene.width, scene.height),
        frozenset(relations),
    )


def is_true(text: str, facts: Facts) -> bool:
    """Whether a text is an expression all of which is true of an object with these facts."""
    expression = Expression.parse(text)
    return expression is not None and not (facts.wrong(expression) or facts.unknown(expression))


def true_expression(facts: Facts, rng: np.random.Generator) -> Expression:
    """A random true expression: always colour and shape, and some of what else is true."""
    assert facts.colour
    assert facts.shape
    related = drawn(sorted(facts.relations), rng) if facts.relations else None
    size, place, nearby = rng.random(3) < 0.5
    return Expression(
        facts.colour,
        facts.shape,
        facts.size if size else None,
        facts.place if place else None,
        related if nearby else None,
    )


def with_wrong(
    expression: Expression, aspect: str, facts: Facts, rng: np.random.Generator
) -> Expression | None:
    """An expression with a wrong word for one aspect.

    Args:
        expression: where it says nothing of the aspect, a wrong word is added.
        aspect: of :data:`ASPECTS`.
        facts: of the object.
        rng: draws the word.

    Returns:
        None where nothing is wrong of the object: a relation without another object.
    """
    if aspect == "relation":
        kinds = sorted({kind for _, kind in facts.relations})
        if not kinds:
            return None
        kind = kinds[int(rng.integers(len(kinds)))]
        wrong = [(w, kind) for w in SIDES if (w, kind) not in facts.relations]
        return replace(expression, relation=drawn(wrong, rng)) if wrong else None
    words = _WORDS[aspect]
    wrong_words = [word for word in words if word != getattr(facts, aspect)]
    changes: dict[str, str] = {aspect: drawn(wrong_words, rng)}
    return replace(expression, **changes)  # type: ignore[arg-type]


def drawn(values: Sequence[Value], rng: np.random.Generator) -> Value:
    """One of some values, each as likely as the others."""
    return values[int(rng.integers(len(values)))]
