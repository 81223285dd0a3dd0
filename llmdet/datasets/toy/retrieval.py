"""Detection by retrieval on the toy set: words, and the objects of an image that they mean.

Everything is read from a split's detection rows. Objects are named by their numbers among the
row's boxes, as a model names candidates (:mod:`llmdet.prompts.objects`). Answers about kinds and
sides begin with a thought: every object of the shape, what it is asked for, and whether it is meant
(Rex-Thinker, arXiv 2506.04034, has models look at candidates one by one before they answer).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.candidates import overlapping
from llmdet.datasets.toy.captions import SIDES, relation
from llmdet.datasets.toy.conversations import Objects
from llmdet.datasets.toy.folders import write_rows
from llmdet.datasets.toy.vocabulary import COLOURS, HELD_OUT, SEEN, SHAPES, Kind
from llmdet.errors import DataError
from llmdet.prompts.object_questions import renumber_objects
from llmdet.prompts.objects import ObjectGrammar, object_mark

logger = logging.getLogger(__name__)

#: What is looked for: a kind, several of them, a shape or a colour, what stands somewhere seen from
#: a thing, a number of things; kinds that are not there ("absent"), and places in which nothing of
#: the shape stands although it is in the image ("refuse").
TASKS = ("detect", "several", "word", "relate", "count", "absent", "refuse")
#: Few tokens: minutes are few.
FIND = "Detect {phrase}."
#: What a training conversation asks for: kinds that are there or absent, words that many objects
#: share or none, and how many there are of a kind, places seen from a thing, where all others stand
#: seen from it, two kinds at once, and what the object of a number is.
TRAINED = ("kinds", "words", "places", "sides", "pairs", "names")
_COUNT = "Count {phrase}."
_NAME = "Name {region}."
_RELATE = "Relate all to {region}."
_SEED = 5
_SAME = 0.5  # IoU from which on a proposal is an object
_TURNS = 8  # most of a training conversation
_THERE = 3  # kinds that are there, for one in it that is not
_PLACES = 3  # asked in it, each about two other shapes
_RELATIONS = 3, 3  # asked of a test image: places that hold, and that do not
_GRAMMAR = ObjectGrammar()


@dataclass(frozen=True)
class Search:
    """Words, and the objects of an image that they mean."""

    task: str  # of TASKS
    found: Mapping[str, tuple[int, ...]]  # phrase -> objects; none where it is absent
    unseen: bool = False  # whether it is about a combination that training never shows
    thought: str = ""  # said in front of the answer

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
            answer = f"The number is {len(self.objects)}: {answer}"
            return _COUNT.format(phrase=self.phrase), f"{self.thought}{answer}"
        return FIND.format(phrase=self.phrase), f"{self.thought}{answer}"


def kind_searches(objects: Objects, task: str = "detect") -> list[Search]:
    """Each kind of the image."""
    return [
        Search(task, {kind.name: _of(objects, kind)}, kind in HELD_OUT, _looked(objects, kind))
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
            "".join(_looked(objects, kind) for kind in pair),
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
        Search("absent", {kind.name: ()}, kind in HELD_OUT, _looked(objects, kind))
        for kind in _drawn(missing, len(shown), rng)
    ]


def relation_searches(objects: Objects) -> list[Search]:
    """Shapes on a side of a shape of which there is one.

    Only of shapes that each stand clearly on a side of it: "relate" where some stand there,
    "refuse" where none do.
    """
    return [search for of_pair in _relations(objects) for search in of_pair]


def _relations(objects: Objects) -> Iterator[list[Search]]:
    """The four sides of a shape that another one may be on, for each two shapes."""
    shapes = [kind.shape for kind in objects.kinds]
    for reference, there in enumerate(shapes):
        if shapes.count(there) > 1:
            continue
        for shape in dict.fromkeys(shapes):
            numbers = [n for n, other in enumerate(shapes) if other == shape]
            places = [relation(objects.boxes[n], objects.boxes[reference]) for n in numbers]
            if shape != there and None not in places:
                found = dict(zip(numbers, map(str, places), strict=True))
                unseen = any(objects.kinds[n] in HELD_OUT for n in (reference, *numbers))
                yield [_related(shape, side, there, reference, found, unseen) for side in SIDES]


def _related(
    shape: str, side: str, there: str, reference: int, places: Mapping[int, str], unseen: bool
) -> Search:
    meant = tuple(number for number, place in places.items() if place == side)
    return Search(
        "relate" if meant else "refuse",
        {f"the {shape} {side} the {there}": meant},
        unseen,
        thought=f"{there}{object_mark(reference)}, {_judged(shape, places, side)}",
    )


def _judged(shape: str, objects: Mapping[int, str], meant: str) -> str:
    """Objects of a shape, what is true of each, and whether this is what is meant."""
    said = [
        f"{shape}{object_mark(number)} {true} {'yes' if true == meant else 'no'}"
        for number, true in objects.items()
    ]
    return f"{', '.join(said) or f'no {shape}'}. "


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
    if task == "sides":
        return _drawn(_sides(objects), _PLACES, rng)
    found = _SEARCHES[task](objects, rng)
    asked = [search.turns for search in found if search.objects or rejection]
    return _drawn(asked, _TURNS, rng)


def _kinds(objects: Objects, rng: np.random.Generator) -> list[Search]:
    """Each kind, and a third as many that are absent."""
    absent = absent_searches(objects, rng)
    return [*kind_searches(objects), *absent[: math.ceil(len(absent) / _THERE)]]


def _words(objects: Objects, rng: np.random.Generator) -> list[Search]:
    return [*word_searches(objects, rng), *kind_searches(objects, "count")]


def _places(objects: Objects, rng: np.random.Generator) -> list[Search]:
    """One side of each two shapes, as often one that holds as one that does not."""
    drawn = []
    for searches in _relations(objects):
        held = rng.random() < 0.5
        drawn += _drawn([each for each in searches if bool(each.objects) == held], 1, rng)
    return _drawn(drawn, _PLACES, rng)


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


def _sides(objects: Objects) -> list[tuple[str, str]]:
    """On which side of each object the others are, those that stand clearly on one."""
    turns = []
    for reference, (kind, box) in enumerate(zip(objects.kinds, objects.boxes, strict=True)):
        sides = [
            f"{other.shape}{object_mark(number)} {side}"
            for number, other in enumerate(objects.kinds)
            if number != reference and (side := relation(objects.boxes[number], box)) is not None
        ]
        if sides:
            mark = object_mark(reference)
            said = f"{kind.shape}{mark}, {', '.join(sides)}."
            turns.append((_RELATE.format(region=mark), said))
    return turns


def training_rows(
    row: dict[str, Any],
    rng: np.random.Generator,
    rejection: bool = True,
    proposals: Sequence[Sequence[float]] = (),
) -> Iterator[dict[str, Any]]:
    """Conversations about one training image, one of each task that it has questions for.

    Objects and proposals that are none of them are the candidates, in another order each time;
    thoughts name objects in that order.

    Args:
        row: its detection row.
        rng: decides what is asked, and the order.
        rejection: with False nothing is asked for that is not there.
        proposals: boxes of a detector, xyxy and maybe a score.
    """
    objects = Objects.of_row(row)
    boxes = np.array([box[:4] for box in proposals], np.float32).reshape(-1, 4)
    others = boxes[~overlapping(boxes, np.array(objects.boxes, np.float32), _SAME)].tolist()
    for task in TRAINED:
        shown = objects.shuffled(rng)
        turns = training_turns(task, shown, rng, rejection)
        if turns:
            told = conversation_row(shown, turns, row["filename"])
            yield _put_among(told, others, rng) | {"task": task}


def _put_among(
    row: dict[str, Any], others: Sequence[Sequence[float]], rng: np.random.Generator
) -> dict[str, Any]:
    """The row with other boxes between its regions, whose order stays as it is."""
    count = len(row["regions"]) + len(others)
    places = sorted(rng.permutation(count)[: len(row["regions"])].tolist())
    regions = dict(zip(places, row["regions"], strict=True))
    rest = iter([{"bbox": list(box)} for box in others])
    said = [
        {**turn, "value": renumber_objects(turn["value"], dict(enumerate(places)))}
        for turn in row["conversations"]
    ]
    return {
        **row,
        "regions": [regions[n] if n in regions else next(rest) for n in range(count)],
        "conversations": said,
    }


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


def _looked(objects: Objects, kind: Kind) -> str:
    """The objects of a kind's shape, and their colours."""
    colours = {n: each.colour for n, each in enumerate(objects.kinds) if each.shape == kind.shape}
    return _judged(kind.shape, colours, kind.colour)


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
    rows = []
    for number, row in enumerate(detection_rows(folder, "train")):
        rng = np.random.default_rng([_SEED, number])
        given = () if proposals is None else proposals[row["filename"]]
        rows += list(training_rows(row, rng, rejection, given))
    write_rows(out, rows)
    logger.info("%s: %d conversations", out, len(rows))


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
