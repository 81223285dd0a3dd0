"""Descriptions of toy scenes that need more than a class name, and the boxes that they are true of.

Each is a sentence with a rule, so that it can be asked of any scene: with a relation ("red circle
left of a blue square"), with a negation ("circle that is not red") or with a number ("exactly two
red circles"), which is true of all of them or of none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from llmdet.datasets.toy.captions import NUMBERS, SIDES, relation
from llmdet.datasets.toy.scene import Item, Scene
from llmdet.datasets.toy.vocabulary import COLOURS, SHAPES

GROUPS = ("name", "relation", "negation", "counting")
_MOST_COUNTED = 3


@dataclass(frozen=True, order=True)
class Description:
    """A sentence about objects of a colour and a shape; compared by what it says."""

    group: str  # of GROUPS
    colour: str
    shape: str
    relation: str = ""  # of SIDES, of group "relation"
    other: tuple[str, str] = ("", "")  # colour and shape of what it relates to
    number: int = 0  # of group "counting"

    def __str__(self) -> str:
        match self.group:
            case "relation":
                article = "an" if self.other[0][0] in "aeiou" else "a"
                return (
                    f"{self.colour} {self.shape} {self.relation} {article} {' '.join(self.other)}"
                )
            case "negation":
                return f"{self.shape} that is not {self.colour}"
            case "counting":
                shape = self.shape if self.number == 1 else SHAPES[self.shape]
                return f"exactly {NUMBERS[self.number]} {self.colour} {shape}"
        return f"{self.colour} {self.shape}"

    def matches(self, scene: Scene) -> tuple[int, ...]:
        """The objects of a scene that it is true of, by number."""
        named = _where(scene, self._is)
        if self.group == "negation":
            alike = _where(scene, lambda item: item.kind.shape == self.shape)
            return tuple(number for number in alike if number not in named)
        if self.group == "counting":
            return named if len(named) == self.number else ()
        if self.group == "relation":
            return tuple(number for number in named if self._is_related(scene, number))
        return named

    def _is(self, item: Item) -> bool:
        return (item.kind.colour, item.kind.shape) == (self.colour, self.shape)

    def _is_related(self, scene: Scene, number: int) -> bool:
        box = scene.items[number].box
        return any(
            relation(box, item.box) == self.relation
            for index, item in enumerate(scene.items)
            if index != number and (item.kind.colour, item.kind.shape) == self.other
        )


def _where(scene: Scene, holds: Callable[[Item], bool]) -> tuple[int, ...]:
    return tuple(number for number, item in enumerate(scene.items) if holds(item))


def true_descriptions(scene: Scene) -> list[Description]:
    """Every description of this kind that is true of an object of a scene, in a fixed order."""
    found: set[Description] = set()
    for number, item in enumerate(scene.items):
        colour, shape = item.kind.colour, item.kind.shape
        found.add(Description("name", colour, shape))
        found.update(Description("negation", other, shape) for other in COLOURS if other != colour)
        same = len(Description("name", colour, shape).matches(scene))
        if same <= _MOST_COUNTED:
            found.add(Description("counting", colour, shape, number=same))
        for index, other_item in enumerate(scene.items):
            word = relation(item.box, other_item.box) if index != number else None
            if word is not None:
                kind = (other_item.kind.colour, other_item.kind.shape)
                found.add(Description("relation", colour, shape, word, kind))
    return sorted(found)


def altered(description: Description, rng: np.random.Generator) -> Iterator[Description]:
    """Descriptions that differ from one in a single word, in random order, without end."""
    while True:
        yield _altered_once(description, rng)


def _altered_once(one: Description, rng: np.random.Generator) -> Description:
    ways: list[Callable[[], Description]] = [
        lambda: replace(one, colour=_other(tuple(COLOURS), one.colour, rng)),
        lambda: replace(one, shape=_other(tuple(SHAPES), one.shape, rng)),
    ]
    if one.group == "relation":
        colour, shape = one.other
        ways += [
            lambda: replace(one, relation=_other(SIDES, one.relation, rng)),
            lambda: replace(one, other=(_other(tuple(COLOURS), colour, rng), shape)),
        ]
    if one.group == "counting":
        numbers = tuple(str(n) for n in range(1, _MOST_COUNTED + 1))
        ways.append(lambda: replace(one, number=int(_other(numbers, str(one.number), rng))))
    return ways[int(rng.integers(len(ways)))]()


def _other(values: tuple[str, ...], value: str, rng: np.random.Generator) -> str:
    rest = [one for one in values if one != value]
    return rest[int(rng.integers(len(rest)))]


def false_description(
    scene: Scene, description: Description, rng: np.random.Generator
) -> Description | None:
    """One that differs in a word and is true of nothing in a scene; None where none was drawn."""
    for _, candidate in zip(range(20), altered(description, rng), strict=False):
        if not candidate.matches(scene):
            return candidate
    return None
