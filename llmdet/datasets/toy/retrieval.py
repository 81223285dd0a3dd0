"""Detection by retrieval on the toy set: words, and the objects of an image that they mean.

Everything is read from a split's detection rows. Objects are named by their numbers among the
row's boxes, as a model names candidates (:mod:`llmdet.prompts.objects`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.toy.captions import relation
from llmdet.datasets.toy.conversations import Objects
from llmdet.datasets.toy.vocabulary import COLOURS, HELD_OUT, SEEN, SHAPES, Kind
from llmdet.errors import DataError
from llmdet.prompts.objects import ObjectGrammar, object_mark

logger = logging.getLogger(__name__)

#: What is looked for: a kind, several of them, a shape or a colour, what stands somewhere seen from
#: a thing, a number of things; kinds that are not there ("absent"), and places in which nothing of
#: the shape stands although it is in the image ("refuse").
TASKS = ("detect", "several", "word", "relate", "count", "absent", "refuse")
#: Few tokens: minutes are few.
FIND = "Detect {phrase}."
#: What a training conversation asks for: kinds that are there or absent, words that many objects
#: share or none, and how many there are of a kind, places seen from a thing, two kinds at once, and
#: what the object of a number is.
TRAINED = ("kinds", "words", "places", "pairs", "names")
_COUNT = "Count {phrase}."
_NAME = "Name {region}."
_SEED = 5
_TURNS = 8  # most of a training conversation
_PLACES = 4, 2  # asked in it that hold, and that do not
_RELATIONS = 3, 3  # the same of a test image
_GRAMMAR = ObjectGrammar()


@dataclass(frozen=True)
class Search:
    """Words, and the objects of an image that they mean."""

    task: str  # of TASKS
    found: Mapping[str, tuple[int, ...]]  # phrase -> objects; none where it is absent
    unseen: bool = False  # whether it asks for a combination that training never shows

    @property
    def phrase(self) -> str:
        """What is looked for."""
        return "; ".join(self.found)

    @property
    def objects(self) -> tuple[int, ...]:
        """All that is meant."""
        return tuple(sorted({number for each in self.found.values() for number in each}))

    @property
    def turns(self) -> tuple[str, str]:
        """The question and its answer."""
        answer = _GRAMMAR.write(self.found)
        if self.task == "count":
            return _COUNT.format(phrase=self.phrase), f"The number is {len(self.objects)}: {answer}"
        return FIND.format(phrase=self.phrase), answer


def kind_searches(objects: Objects, task: str = "detect") -> list[Search]:
    """Each kind of the image."""
    return [
        Search(task, {kind.name: _of(objects, kind)}, kind in HELD_OUT)
        for kind in dict.fromkeys(objects.kinds)
    ]


def several_searches(objects: Objects, rng: np.random.Generator) -> list[Search]:
    """Two kinds of the image at a time, each kind once."""
    kinds = list(dict.fromkeys(objects.kinds))
    order = [kinds[n] for n in rng.permutation(len(kinds))]
    pairs = zip(order[::2], order[1::2], strict=False)
    return [
        Search(
            "several",
            {kind.name: _of(objects, kind) for kind in pair},
            any(kind in HELD_OUT for kind in pair),
        )
        for pair in pairs
    ]


def word_searches(objects: Objects, rng: np.random.Generator) -> list[Search]:
    """Every shape and every colour of the image, and as many that it does not show."""
    found = []
    for words, of_kind, tail in ((SHAPES, "shape", ""), (COLOURS, "colour", " one")):
        shown = [getattr(kind, of_kind) for kind in objects.kinds]
        missing = [word for word in words if word not in shown]
        asked = [*dict.fromkeys(shown), *_drawn(missing, len(set(shown)), rng)]
        for word in asked:
            numbers = tuple(n for n, other in enumerate(shown) if other == word)
            found.append(Search("word", {f"{word}{tail}": numbers}))
    return found


def absent_searches(
    objects: Objects, rng: np.random.Generator, kinds: Sequence[Kind] = SEEN
) -> list[Search]:
    """As many kinds that the image does not show as it shows."""
    shown = set(objects.kinds)
    missing = [kind for kind in kinds if kind not in shown]
    return [
        Search("absent", {kind.name: ()}, kind in HELD_OUT)
        for kind in _drawn(missing, len(shown), rng)
    ]


def relation_searches(objects: Objects) -> list[Search]:
    """Shapes on a side of a shape of which there is one.

    Only of shapes that each stand clearly on a side of it: "relate" where some stand there,
    "refuse" where none do.
    """
    searches = []
    shapes = [kind.shape for kind in objects.kinds]
    for reference, there in enumerate(shapes):
        if shapes.count(there) > 1:
            continue
        for shape in dict.fromkeys(shapes):
            numbers = [n for n, other in enumerate(shapes) if other == shape]
            places = [relation(objects.boxes[n], objects.boxes[reference]) for n in numbers]
            if shape == there or None in places:
                continue
            for word in ("left of", "right of", "above", "below"):
                meant = tuple(n for n, place in zip(numbers, places, strict=True) if place == word)
                phrase = f"the {shape} {word} the {there}"
                searches.append(Search("relate" if meant else "refuse", {phrase: meant}))
    return searches


def training_turns(
    task: str, objects: Objects, rng: np.random.Generator, rejection: bool = True
) -> list[tuple[str, str]]:
    """Questions and answers of a training conversation, in random order.

    Args:
        task: of :data:`TRAINED`.
        objects: of the image.
        rng: decides what is asked.
        rejection: with False nothing is asked for that is not there.

    Returns:
        None of them where the image has nothing that the task asks for.
    """
    if task == "names":
        return _drawn(_names(objects), _TURNS, rng)
    found = _SEARCHES[task](objects, rng)
    asked = [search.turns for search in found if search.objects or rejection]
    return _drawn(asked, _TURNS, rng)


def _kinds(objects: Objects, rng: np.random.Generator) -> list[Search]:
    return [*kind_searches(objects), *absent_searches(objects, rng)]


def _words(objects: Objects, rng: np.random.Generator) -> list[Search]:
    return [*word_searches(objects, rng), *kind_searches(objects, "count")]


def _places(objects: Objects, rng: np.random.Generator) -> list[Search]:
    return _of_relations(relation_searches(objects), *_PLACES, rng)


_SEARCHES: dict[str, Callable[[Objects, np.random.Generator], list[Search]]] = {
    "kinds": _kinds,
    "words": _words,
    "places": _places,
    "pairs": several_searches,
}


def _names(objects: Objects) -> list[tuple[str, str]]:
    """What each object is; the shape first, as behind the colour the shape that was seen with it
    would be said."""
    return [
        (_NAME.format(region=object_mark(number)), f"{kind.shape}, {kind.colour}")
        for number, kind in enumerate(objects.kinds)
    ]


def training_rows(
    row: dict[str, Any], rng: np.random.Generator, rejection: bool = True
) -> Iterator[dict[str, Any]]:
    """Conversations about one training image, one of each task that it has questions for.

    Args:
        row: its detection row.
        rng: decides what is asked.
        rejection: with False nothing is asked for that is not there.
    """
    objects = Objects.of_row(row)
    for task in TRAINED:
        turns = training_turns(task, objects, rng, rejection)
        if turns:
            yield conversation_row(objects, turns, row["filename"]) | {"task": task}


def conversation_row(
    objects: Objects, turns: Sequence[tuple[str, str]], filename: str
) -> dict[str, Any]:
    """A row of docs/data.md, whose regions are the image's objects."""
    said = [
        {"from": who, "value": text}
        for turn in turns
        for who, text in zip(("human", "gpt"), turn, strict=True)
    ]
    width, height = objects.size
    regions = [{"bbox": list(box)} for box in objects.boxes]
    size = {"filename": filename, "height": height, "width": width}
    return {**size, "regions": regions, "conversations": said}


def searches_of(
    row: dict[str, Any], rng: np.random.Generator, kinds: Sequence[Kind] = SEEN
) -> list[Search]:
    """What is looked for in an image of a validation split.

    Args:
        row: its detection row.
        rng: decides what is asked.
        kinds: what may be asked for and not be there.
    """
    objects = Objects.of_row(row)
    return [
        *kind_searches(objects),
        *several_searches(objects, rng),
        *absent_searches(objects, rng, kinds),
        *_of_relations(relation_searches(objects), *_RELATIONS, rng),
    ]


def _of_relations(
    searches: Sequence[Search], held: int, refused: int, rng: np.random.Generator
) -> list[Search]:
    """At most so many that hold, and that do not."""
    there = [each for each in searches if each.objects]
    empty = [each for each in searches if not each.objects]
    return [*_drawn(there, held, rng), *_drawn(empty, refused, rng)]


def _of(objects: Objects, kind: Kind) -> tuple[int, ...]:
    return tuple(number for number, other in enumerate(objects.kinds) if other == kind)


def _drawn(values: Sequence[Any], count: int, rng: np.random.Generator) -> list[Any]:
    """At most so many, in random order."""
    return [values[n] for n in rng.permutation(len(values))[:count]]


def write_retrieval_rows(
    folder: str | Path,
    out: str | Path,
    proposals: Mapping[str, Sequence[Sequence[float]]] | None = None,
    rejection: bool = True,
) -> None:
    """Write :func:`training_rows` of a toy set as JSONL, unless they are there.

    Args:
        folder: the toy set.
        out: file to write.
        proposals: file name of an image -> boxes of a detector, xyxy and a score, among which the
            objects are to be found; None for the objects alone.
        rejection: with False nothing is asked for that is not there.

    Raises:
        DataError: there is no toy set.
    """
    out = Path(out)
    if out.is_file():
        return
    lines = []
    for number, row in enumerate(detection_rows(folder, "train")):
        given = {} if proposals is None else {"proposals": proposals[row["filename"]]}
        rows = training_rows(row, np.random.default_rng([_SEED, number]), rejection)
        lines += [json.dumps(each | given, separators=(",", ":")) + "\n" for each in rows]
    out.write_text("".join(lines), encoding="utf-8")
    logger.info("%s: %d conversations", out, len(lines))


def detection_rows(folder: str | Path, split: str) -> Iterator[dict[str, Any]]:
    """The detection rows of a toy set.

    Raises:
        DataError: there is no toy set.
    """
    source = Path(folder) / "annotations" / f"{split}_detection.jsonl"
    if not source.is_file():
        raise DataError(f"toy set: {source} is missing; make the set first")
    with source.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)
