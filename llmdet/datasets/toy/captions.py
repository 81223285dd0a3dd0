"""What the toy set says about a scene: phrases with spans, and a long description.

All of it is computed from the boxes, so every sentence is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from llmdet.datasets.toy.scene import Item, Scene
from llmdet.datasets.toy.vocabulary import SHAPES

NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
#: The ninths of an image, from its top.
PLACES = (
    ("in the upper left", "at the top", "in the upper right"),
    ("on the left", "in the center", "on the right"),
    ("in the lower left", "at the bottom", "in the lower right"),
)
_ARTICLES = {"orange": "an"}


@dataclass(frozen=True, eq=False)
class Group:
    """Objects that one phrase stands for."""

    phrase: str  # without article or number, e.g. "small red circles"
    items: tuple[Item, ...]

    @property
    def determined(self) -> str:
        """The phrase with its article or number: "a small red circle", "two red circles"."""
        if len(self.items) > 1:
            return f"{NUMBERS[len(self.items)]} {self.phrase}"
        return f"{_ARTICLES.get(self.phrase.split()[0], 'a')} {self.phrase}"


def describe_kind(item: Item, with_size: bool, plural: bool = False) -> str:
    """Name an object: "red circle", "small red circle", "small red circles"."""
    shape = SHAPES[item.kind.shape] if plural else item.kind.shape
    words = [item.size] if with_size else []
    return " ".join([*words, item.kind.colour, shape])


def group_items(items: Sequence[Item], with_size: bool) -> list[Group]:
    """Collect the objects that share a phrase, in order of appearance."""
    members: dict[str, list[Item]] = {}
    for item in items:
        members.setdefault(describe_kind(item, with_size), []).append(item)
    return [
        Group(describe_kind(group[0], with_size, plural=len(group) > 1), tuple(group))
        for group in members.values()
    ]


#: What :func:`relation` may say.
SIDES = ("left of", "right of", "above", "below")


def relation(a: Sequence[float], b: Sequence[float]) -> str | None:
    """Say where xyxy box `a` is, seen from `b`; None unless one axis clearly says so."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a, b
    dx, dy = (ax1 + ax2 - bx1 - bx2) / 2, (ay1 + ay2 - by1 - by2) / 2
    if abs(dx) > 1.5 * abs(dy):
        if ax2 <= bx1:
            return "left of"
        return "right of" if bx2 <= ax1 else None
    if abs(dy) > 1.5 * abs(dx):
        if ay2 <= by1:
            return "above"
        return "below" if by2 <= ay1 else None
    return None


def position(box: Sequence[float], width: float, height: float) -> str:
    """Name the ninth of an image of `width` x `height` that holds the centre of an xyxy box."""
    row, column = _ninth(box, width, height)
    return PLACES[row][column]


def _ninth(box: Sequence[float], width: float, height: float) -> tuple[int, int]:
    x1, y1, x2, y2 = box
    column = min(int(3 * (x1 + x2) / 2 / width), 2)
    row = min(int(3 * (y1 + y2) / 2 / height), 2)
    return row, column


def grounding_caption(
    scene: Scene, rng: np.random.Generator
) -> tuple[str, list[tuple[Group, tuple[int, int]]]]:
    """Write one sentence that names every object.

    Returns:
        The sentence, and for every group of objects the [start, end) characters of its phrase.
    """
    groups = group_items(scene.items, with_size=bool(rng.random() < 0.5))
    groups = [groups[i] for i in rng.permutation(len(groups))]
    related = _related_pair(groups)
    if related is not None and rng.random() < 0.5:
        first, word, second = related
        others = [group for group in groups if group not in (first, second)]
        ordered = [first, second, *others]
        joints = [f" {word} ", *_list_joints(len(others))]
    else:
        ordered = groups
        joints = _list_joints(len(groups) - 1)
    text, spans = "", []
    for joint, group in zip(["", *joints], ordered, strict=True):
        start = len(text + joint + group.determined) - len(group.phrase)
        text += joint + group.determined
        spans.append((group, (start, start + len(group.phrase))))
    return f"{text[0].upper()}{text[1:]}.", spans


def _related_pair(groups: Sequence[Group]) -> tuple[Group, str, Group] | None:
    single = [group for group in groups if len(group.items) == 1]
    for a, b in pairwise(single):
        word = relation(a.items[0].box, b.items[0].box)
        if word is not None:
            return a, word, b
    return None


def _list_joints(count: int) -> list[str]:
    """Separators in front of `count` more members of a list; the last one reads "and"."""
    return [", "] * (count - 1) + [" and "] if count > 0 else []


def long_caption(scene: Scene) -> str:
    """Describe number, background and every object with its place in a paragraph, row by row."""
    items = sorted(scene.items, key=lambda item: _reading_order(item, scene))
    count = len(items)
    sentences = [
        f"The image shows {NUMBERS[count]} {'shape' if count == 1 else 'shapes'} "
        f"on a {scene.background if scene.photograph else f'{scene.background} background'}."
    ]
    for item in items:
        name = describe_kind(item, with_size=True)
        article = _ARTICLES.get(name.split()[0], "a").capitalize()
        place = position(item.box, scene.width, scene.height)
        sentences.append(f"{article} {name} is {place}.")
    return " ".join(sentences)


def _reading_order(item: Item, scene: Scene) -> tuple[int, float]:
    row, _ = _ninth(item.box, scene.width, scene.height)
    return row, item.box[0] + item.box[2]
