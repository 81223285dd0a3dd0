"""Conversations about the toy set in which words, indices and regions have masks.

Masks are those that were drawn. Everything follows from the settings of a toy set, so that it can
be added to one at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.masks import encode_mask
from llmdet.datasets.toy.captions import PLACES, position, relation
from llmdet.datasets.toy.folders import write_rows
from llmdet.datasets.toy.scene import Item, Scene, item_mask
from llmdet.datasets.toy.vocabulary import HELD_OUT, Kind
from llmdet.datasets.toy.writer import SPLITS, read_scenes
from llmdet.prompts.objects import ObjectGrammar, list_candidates, object_mark

logger = logging.getLogger(__name__)

#: What is asked: of the image alone, then of objects that are listed in front of the question.
TASKS = ("refer", "caption", "index", "name", "find", "relate")
#: Those whose objects are listed, and whose questions a training conversation mixes.
MIXED = ("index", "name", "find", "relate")
#: Of training alone: the same without masks, of the image, as a description and of listed objects.
WORDS = ("where", "describe", "listed")
CAPTION = "Describe the image with masks."
_SEED = 0
_TURNS = 4  # most of a training conversation with masks
_TURNS_OF_WORDS = 12  # and of one without, which costs less
_LISTS = 4  # orders in which the objects of an image are listed: what is asked is in their order
_OF_EACH = 2  # of a task in a conversation that mixes them
_GRAMMAR = ObjectGrammar()


@dataclass(frozen=True)
class Question:
    """A question about the objects of an image, and its answer."""

    task: str  # of TASKS
    text: str
    answer: str  # with the marks of rows
    kind: Kind | None = None  # the object that is meant, where it is one

    @property
    def unseen(self) -> bool:
        """Whether it means a combination that training never shows."""
        return self.kind in HELD_OUT


@dataclass(frozen=True)
class MaskedObjects:
    """The objects of an image, in the order in which questions number them."""

    items: tuple[Item, ...]
    size: tuple[int, int]  # height, width

    @classmethod
    def of_scene(cls, scene: Scene) -> MaskedObjects:
        """Row by row from the top, and from left to right in each; a row is a third."""

        def place(item: Item) -> tuple[int, float]:
            x1, y1, x2, y2 = item.box
            return int(len(PLACES) * (y1 + y2) / 2 / scene.height), x1 + x2

        return cls(tuple(sorted(scene.items, key=place)), (scene.height, scene.width))

    def shuffled(self, rng: np.random.Generator) -> MaskedObjects:
        """The same objects with other numbers."""
        return MaskedObjects(
            tuple(self.items[n] for n in rng.permutation(len(self.items))), self.size
        )

    @property
    def kinds(self) -> list[Kind]:
        """Colour and shape of each."""
        return [item.kind for item in self.items]

    def place(self, number: int) -> str:
        """Where an object is, in words."""
        height, width = self.size
        return position(self.items[number].box, width, height).capitalize()

    def answer(self, number: int) -> str:
        """The mask of an object, behind where it is: to say so is to have looked at it."""
        return f"{self.place(number)}: <mask:{number}>."

    def regions(self) -> list[dict[str, Any]]:
        """Boxes and masks as rows have them."""
        return [
            {
                "bbox": [round(side, 2) for side in item.box],
                "segmentation": encode_mask(item_mask(item, self.size)),
            }
            for item in self.items
        ]


def _singled_out(objects: MaskedObjects, whole: bool = False) -> list[tuple[int, str]]:
    """Objects that their kind singles out, or unless ``whole`` their colour or shape alone."""
    kinds = objects.kinds
    found = []
    for number, kind in enumerate(kinds):
        names = [(kind.name, kinds.count(kind))]
        if not whole:
            names.append((kind.shape, sum(other.shape == kind.shape for other in kinds)))
            names.append((f"{kind.colour} one", sum(o.colour == kind.colour for o in kinds)))
        found += [(number, name) for name, count in names if count == 1]
    return found


def refer_questions(objects: MaskedObjects, whole: bool = False) -> list[Question]:
    """The mask of each object that its kind singles out, or its colour or shape alone.

    Args:
        objects: of an image.
        whole: by its kind alone.
    """
    return [
        Question("refer", f"Segment the {name}.", objects.answer(number), objects.kinds[number])
        for number, name in _singled_out(objects, whole)
    ]


def where_questions(objects: MaskedObjects, listed: bool = False) -> list[Question]:
    """Where objects are: by their number where they are listed, else by what singles them out."""
    asked = [(n, object_mark(n)) for n in range(len(objects.items))]
    if not listed:
        asked = [(number, f"the {name}") for number, name in _singled_out(objects)]
    return [Question("where", f"Where is {name}?", objects.place(n)) for n, name in asked]


def caption_question(objects: MaskedObjects) -> Question:
    """All objects, each with its mask."""
    phrases = [f"<p>{kind.name}</p><mask:{n}>" for n, kind in enumerate(objects.kinds)]
    return Question("caption", CAPTION, f"{', '.join(phrases)}.")


def index_questions(objects: MaskedObjects) -> list[Question]:
    """The mask of each object by its number."""
    return [
        Question("index", f"Segment {object_mark(n)}.", objects.answer(n), kind)
        for n, kind in enumerate(objects.kinds)
    ]


def name_questions(objects: MaskedObjects) -> list[Question]:
    """What each object is, by its number."""
    return [
        Question("name", f"What is {object_mark(n)}?", kind.name, kind)
        for n, kind in enumerate(objects.kinds)
    ]


def find_questions(objects: MaskedObjects) -> list[Question]:
    """The number of each object that its kind singles out."""
    kinds = objects.kinds
    return [
        Question("find", f"Which is the {kind.name}?", _GRAMMAR.write_phrase(kind.name, [n]), kind)
        for n, kind in enumerate(kinds)
        if kinds.count(kind) == 1
    ]


def relate_questions(objects: MaskedObjects) -> list[Question]:
    """Name, number and mask of the only object that lies on one side of another."""
    kinds, boxes = objects.kinds, [item.box for item in objects.items]
    questions = []
    for kind, box in zip(kinds, boxes, strict=True):
        if kinds.count(kind) > 1:
            continue
        words = [relation(other, box) for other in boxes]
        for word in sorted({word for word in words if word and words.count(word) == 1}):
            number = words.index(word)
            text = f"Which of these is {word} the {kind.name}? Answer with its index and its mask."
            named = _GRAMMAR.write_phrase(kinds[number].name, [number])
            answer = f"{named}<mask:{number}>"
            questions.append(Question("relate", text, answer, kinds[number]))
    return questions


def training_rows(scene: Scene, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Conversations about a training image, each with its ``task``.

    Those are "refer", "caption" and "index", "mixed" of all with indices, and :data:`WORDS`.

    Args:
        scene: what it shows.
        rng: decides what is asked, and which number an object has.
    """
    objects = MaskedObjects.of_scene(scene)
    if questions := _drawn(refer_questions(objects), rng):
        yield _row(objects, "refer", questions)
    yield _row(objects, "caption", [caption_question(objects)])
    listed = objects.shuffled(rng)
    yield _row(listed, "index", _drawn(index_questions(listed), rng))
    listed = objects.shuffled(rng)
    others = [
        *_drawn(relate_questions(listed), rng)[:_OF_EACH],
        *_drawn(find_questions(listed), rng)[:_OF_EACH],
        *_drawn(name_questions(listed), rng)[:_OF_EACH],
        *_drawn(index_questions(listed), rng)[:_OF_EACH],
    ]
    yield _row(listed, "mixed", _drawn(others, rng))
    yield from _rows_of_words(objects, rng)


def _rows_of_words(objects: MaskedObjects, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """What answers with masks need to know, without masks: many questions at little cost."""
    if questions := _drawn(where_questions(objects), rng, _TURNS_OF_WORDS):
        yield _row(objects, "where", questions)
    names = ", ".join(kind.name for kind in objects.kinds)
    yield _row(objects, "describe", [Question("describe", "Describe the image.", f"{names}.")])
    for _ in range(_LISTS):
        yield listed_row(objects.shuffled(rng), rng)


def listed_row(objects: MaskedObjects, rng: np.random.Generator) -> dict[str, Any]:
    """What and where listed objects are, and which is what, in words and numbers."""
    asked = [*name_questions(objects), *where_questions(objects, True), *find_questions(objects)]
    return _row(objects, "listed", _drawn(asked, rng, _TURNS_OF_WORDS))


def question_rows(scene: Scene, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """One row for each question about an image of a validation split; arguments as above."""
    objects = MaskedObjects.of_scene(scene)
    listed = objects.shuffled(rng)
    asked = [
        (objects, refer_questions(objects, whole=True)),
        (objects, [caption_question(objects)]),
        (listed, index_questions(listed)),
        (listed, name_questions(listed)),
        (listed, find_questions(listed)),
        (listed, _drawn(relate_questions(listed), rng)[:2]),
    ]
    for shown, questions in asked:
        for question in questions:
            yield _row(shown, question.task, [question]) | {"unseen": question.unseen}


def _drawn(
    questions: Sequence[Question], rng: np.random.Generator, most: int = _TURNS
) -> list[Question]:
    return [questions[n] for n in rng.permutation(len(questions))[:most]]


def _row(objects: MaskedObjects, task: str, questions: Sequence[Question]) -> dict[str, Any]:
    """A row of docs/data.md in which the questions are asked and answered one after another."""
    turns = []
    for question in questions:
        turns.append({"from": "human", "value": question.text})
        turns.append({"from": "gpt", "value": question.answer})
    listed = (
        f"{list_candidates(len(objects.items))}\n" if task in (*MIXED, "mixed", "listed") else ""
    )
    turns[0]["value"] = f"<image>\n{listed}{turns[0]['value']}"
    height, width = objects.size
    size = {"height": height, "width": width}
    return {**size, "regions": objects.regions(), "conversations": turns, "task": task}


def write_mask_questions(folder: str | Path) -> None:
    """Write ``annotations/{split}_masks.jsonl`` of a toy set, unless they are there.

    Args:
        folder: the toy set, as :func:`llmdet.datasets.toy.generate` wrote it.

    Raises:
        DataError: there is no toy set, or one that another version has written.
    """
    for stream, split in enumerate(SPLITS):
        path = Path(folder) / "annotations" / f"{split}_masks.jsonl"
        if path.is_file():
            continue
        make = training_rows if split == "train" else question_rows
        rows = []
        for number, scene in enumerate(read_scenes(folder, split)):
            rng = np.random.default_rng([_SEED, stream, number])
            name = {"filename": f"{split}/{number:06d}.jpg"}
            rows += [name | row for row in make(scene, rng)]
        write_rows(path, rows)
        logger.info("%s: %d conversations with masks", split, len(rows))
