"""Questions about regions of the toy set, with true answers: what region language models learn.

Everything is read from a split's detection rows, so that it can be added to a toy set at any time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.toy.captions import relation
from llmdet.datasets.toy.folders import write_rows
from llmdet.datasets.toy.vocabulary import (
    ALL_KINDS,
    COLOURS,
    HELD_OUT,
    SEEN,
    SHAPES,
    Kind,
)
from llmdet.errors import DataError

logger = logging.getLogger(__name__)

#: What is asked; each task has questions of its own.
TASKS = ("classify", "choose", "exist", "relate")
SPLITS = ("train", "val_seen", "val_unseen")
_SEED = 0
_TRAINING_TURNS = 12  # most of a row
_ROWS_OF_EXISTENCE = 2  # of each training image: what is hardest is asked most often
_RELATIONS = 3  # asked in a row of training, and of an image of a validation split

Box = Sequence[float]


@dataclass(frozen=True)
class Question:
    """A question about regions of an image, and its answer."""

    task: str  # of TASKS
    text: str  # with a mark for each region
    answer: str
    regions: tuple[Box, ...]  # xyxy in pixels, in the order of the marks
    kind: Kind | None = None  # what is asked for, where it is an object

    @property
    def unseen(self) -> bool:
        """Whether it asks for a combination that training never shows."""
        return self.kind in HELD_OUT


@dataclass(frozen=True)
class Objects:
    """What is in an image."""

    kinds: tuple[Kind, ...]
    boxes: tuple[Box, ...]  # xyxy in pixels
    size: tuple[int, int]  # width, height

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> Objects:
        """The objects of a detection row."""
        instances = row["detection"]["instances"]
        kinds = tuple(Kind(*instance["category"].split()) for instance in instances)
        boxes = tuple(instance["bbox"] for instance in instances)
        return cls(kinds, boxes, (row["width"], row["height"]))

    def shuffled(self, rng: np.random.Generator) -> Objects:
        """The same in another order."""
        order = rng.permutation(len(self.kinds))
        return Objects(
            tuple(self.kinds[n] for n in order), tuple(self.boxes[n] for n in order), self.size
        )


def classify_questions(objects: Objects) -> list[Question]:
    """What each object is.

    The shape is said first: behind the colour, a language model says the shape that it has seen of
    this colour. A colour is plain enough to be said whatever stands before it.
    """
    text = "What shape and colour is <region>?"
    return [
        Question("classify", text, _words(kind), (box,), kind)
        for kind, box in zip(objects.kinds, objects.boxes, strict=True)
    ]


def _words(kind: Kind) -> str:
    return f"{kind.shape}, {kind.colour}"


def choose_questions(objects: Objects, rng: np.random.Generator) -> list[Question]:
    """Which of four kinds each object is: two shapes in two colours, which no word tells apart."""
    questions = []
    for kind, box in zip(objects.kinds, objects.boxes, strict=True):
        others = [
            (Kind(kind.colour, shape), Kind(colour, kind.shape), Kind(colour, shape))
            for colour in COLOURS
            for shape in SHAPES
            if colour != kind.colour and shape != kind.shape
        ]
        others = [three for three in others if not set(three) & set(HELD_OUT)]
        options = [kind, *others[int(rng.integers(len(others)))]]
        listed = [_words(options[n]) for n in rng.permutation(len(options))]
        text = f"Is <region> a {'; '.join(listed[:-1])} or {listed[-1]}?"
        questions.append(Question("choose", text, _words(kind), (box,), kind))
    return questions


def exist_questions(
    objects: Objects, rng: np.random.Generator, kinds: Sequence[Kind] = SEEN
) -> list[Question]:
    """Whether a kind is in the image: of each that is, and of as many of ``kinds`` that are not."""
    present = sorted(set(objects.kinds))
    absent = [kind for kind in kinds if kind not in present]
    absent = [absent[n] for n in rng.permutation(len(absent))[: len(present)]]
    return [
        Question("exist", f"Is there a {_words(kind)}?", answer, (), kind)
        for answer, asked in (("yes", present), ("no", absent))
        for kind in asked
    ]


def attribute_questions(objects: Objects, rng: np.random.Generator) -> list[Question]:
    """Whether a shape, and whether a colour, is in the image; as often it is as it is not."""
    questions = []
    for words, present in (
        (SHAPES, {kind.shape for kind in objects.kinds}),
        (COLOURS, {kind.colour for kind in objects.kinds}),
    ):
        there = sorted(present)
        missing = [word for word in words if word not in present]
        missing = [missing[n] for n in rng.permutation(len(missing))]
        for yes, no in zip(there, missing, strict=False):
            questions += [
                Question("exist", f"Is there a {word}?", answer, ())
                for word, answer in ((yes, "yes"), (no, "no"))
            ]
    return questions


def relate_questions(objects: Objects) -> list[Question]:
    """Where an object is, seen from another, wherever one axis clearly says so."""
    questions = []
    for first, second in permutations(objects.boxes, 2):
        word = relation(first, second)
        if word is not None:
            text = "Where is <region>, seen from <region>?"
            questions.append(Question("relate", text, word, (first, second)))
    return questions


def find_questions(objects: Objects) -> list[Question]:
    """The colour of each shape that one object has, and the shape of each such colour.

    They are no task of a test: whether a kind is in the image is learned faster by a model that
    has learned to look for what a word names.
    """
    questions = []
    for kind in objects.kinds:
        if sum(other.shape == kind.shape for other in objects.kinds) == 1:
            text = f"What colour is the {kind.shape}?"
            questions.append(Question("find", text, kind.colour, (), kind))
        if sum(other.colour == kind.colour for other in objects.kinds) == 1:
            text = f"What shape is the {kind.colour} one?"
            questions.append(Question("find", text, kind.shape, (), kind))
    return questions


def training_rows(row: dict[str, Any], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Conversations about one training image, in which no answer gives another away.

    Args:
        row: its detection row.
        rng: decides what is asked.
    """
    objects = Objects.of_row(row)
    names = classify_questions(objects)
    related = relate_questions(objects)
    groups = [
        [_attribute(question, rng) for question in names],
        choose_questions(objects, rng),
        find_questions(objects),
    ]
    groups = [[*group, *_shuffled(related, rng)[:_RELATIONS]] for group in groups]
    groups += [
        exist_questions(objects, rng) + attribute_questions(objects, rng)
        for _ in range(_ROWS_OF_EXISTENCE)
    ]
    for questions in groups:
        chosen = _shuffled(questions, rng)[:_TRAINING_TURNS]
        if chosen:
            yield conversation_row(row, chosen)


def _attribute(question: Question, rng: np.random.Generator) -> Question:
    """Half of the time only the shape or the colour is asked for."""
    assert question.kind is not None
    word = (None, None, "shape", "colour")[int(rng.integers(4))]
    if word is None:
        return question
    answer = getattr(question.kind, word)
    return replace(question, text=f"What {word} is <region>?", answer=answer)


def question_rows(
    row: dict[str, Any], rng: np.random.Generator, kinds: Sequence[Kind] = SEEN
) -> Iterator[dict[str, Any]]:
    """One row for each question about an image of a validation split.

    Args:
        row: its detection row.
        rng: decides what is asked of what is not there.
        kinds: what may be asked for and not be there.
    """
    objects = Objects.of_row(row)
    questions = [
        *classify_questions(objects),
        *choose_questions(objects, rng),
        *exist_questions(objects, rng, kinds),
        *_shuffled(relate_questions(objects), rng)[:_RELATIONS],
    ]
    for question in questions:
        yield {
            **conversation_row(row, [question]),
            "task": question.task,
            "unseen": question.unseen,
        }


def conversation_row(row: dict[str, Any], questions: Sequence[Question]) -> dict[str, Any]:
    """A row of docs/data.md in which the questions are asked and answered one after another."""
    turns, regions = [], []
    for question in questions:
        turns.append({"from": "human", "value": question.text})
        turns.append({"from": "gpt", "value": question.answer})
        regions += [{"bbox": list(box)} for box in question.regions]
    turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    size = {key: row[key] for key in ("filename", "height", "width")}
    return {**size, "regions": regions, "conversations": turns}


def _shuffled(questions: Sequence[Question], rng: np.random.Generator) -> list[Question]:
    return [questions[n] for n in rng.permutation(len(questions))]


def write_region_questions(folder: str | Path) -> None:
    """Write ``annotations/{split}_regions.jsonl`` of a toy set, unless they are there.

    Args:
        folder: the toy set, as :func:`llmdet.datasets.toy.generate` wrote it.

    Raises:
        DataError: there is no toy set.
    """
    annotations = Path(folder) / "annotations"
    for stream, split in enumerate(SPLITS):
        path = annotations / f"{split}_regions.jsonl"
        if path.is_file():
            continue
        source = annotations / f"{split}_detection.jsonl"
        if not source.is_file():
            raise DataError(f"toy set: {source} is missing; make the set first")
        lines = source.read_text(encoding="utf-8").splitlines()
        rows = []
        for number, line in enumerate(lines):
            rng = np.random.default_rng([_SEED, stream, number])
            if split == "train":
                rows += list(training_rows(json.loads(line), rng))
            else:
                kinds = ALL_KINDS if split == "val_unseen" else SEEN
                rows += list(question_rows(json.loads(line), rng, kinds))
        write_rows(path, rows)
        logger.info("%s: %d conversations about regions", split, len(rows))
