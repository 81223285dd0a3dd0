"""Expressions from nothing: detections become what Real-LOD's agent reads (arXiv 2503.23508).

Of each object a vision model says a short and a long expression and describes it in its scene, a
language model writes further expressions from that, and a CLIP leaves out what does not fit.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from llmdet.chat import ask
from llmdet.data_engines.annotations import (
    Annotations,
    close_ups,
    crop,
    largest_instances,
    name_of,
)
from llmdet.data_engines.caption_rules import accepted_caption, accepted_phrase
from llmdet.data_engines.flow import Call, Model, Steps
from llmdet.data_engines.image_edits import ImageEdit, edited_pictures
from llmdet.data_engines.journal import Journal, Outcome
from llmdet.data_engines.questions import Question, Reply, accepted_replies, left_out
from llmdet.data_engines.real_data_prompts import (
    CAPTION,
    LONG,
    MORE,
    SHORT,
    accepted_expression,
    accepted_lines,
)
from llmdet.data_engines.runs import WHOLE, Run
from llmdet.data_engines.similarity import Pair, SimilarityFilter
from llmdet.datasets.formats.samples import Instance, Sample
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.pictures import read_picture
from llmdet.errors import naming

#: Who is asked, and what compares.
CAPTIONER, DIVERSIFIER, FILTER = "captioner", "diversifier", "filter"
#: Sources of expressions, as Real-Data calls them.
VLM_SHORT, VLM_LONG, LLM = "vlm_short", "vlm_long", "llm"
UNLIKE = "expression unlike its object"
TOO_SMALL = "object too small to be described"
NOTHING_LEFT = "picture without a described object"

Record = dict[str, Any]


@dataclass(frozen=True)
class ExpressionSettings:
    """What is asked, and which answers are taken.

    Attributes:
        objects: objects of a picture to be described, the largest first.
        min_side: an object's shorter side in pixels; smaller ones show nothing.
        more: expressions that the language model adds for each object; 0 asks it nothing.
        attempts: how often a question is asked before it stays without an answer.
        min_words: the least number of words of an object's description.
        others: further objects of the picture that the agent is told of.
    """

    objects: int = 5
    min_side: int = 16
    more: int = 4
    attempts: int = 3
    min_words: int = 20
    others: int = 20


def write_expressions(
    annotations: Annotations,
    journal: Journal,
    out: Path,
    models: dict[str, Model],
    settings: ExpressionSettings,
    keep: SimilarityFilter,
    ledger: Ledger,
    run: Run = WHOLE,
) -> int:
    """Write records of the agent: one for each expression of each object.

    Args:
        annotations: pictures with boxes and classes.
        journal: of this run; its settings decide the answers.
        out: the JSONL file to write.
        models: by role; without :data:`FILTER` nothing is left out for being unlike.
        settings: what to ask.
        keep: which expressions fit their objects.
        ledger: counts what is left out, by cause.
        run: how pictures go through, and which.

    Returns:
        The number of records.
    """
    source = annotations.open(ledger)
    program = ExpressionProgram(annotations.images, settings, compare=FILTER in models)
    run.take(source.samples, source.total, program, models, journal, ledger)
    least = keep.least(list(_similarities(journal)))
    return journal.finish(
        out, ledger, rows_of=partial(records_of, least=least, others=settings.others, ledger=ledger)
    )


@dataclass
class _Object:
    """An object on its way: what is seen of it and what was said."""

    instance: Instance
    number: int  # in its picture
    close_up: Image.Image
    marked: Image.Image  # the picture with a line around the object
    caption: str = ""
    expressions: list[tuple[str, str]] = field(default_factory=list)  # (source, text)

    @property
    def name(self) -> str:
        return name_of(self.instance)


@dataclass(frozen=True)
class ExpressionProgram:
    """Turns a sample into a row: its objects, each with a description and expressions.

    Attributes:
        images: the folder of the pictures.
        settings: what to ask.
        compare: whether expressions are compared with their objects.
    """

    images: Path
    settings: ExpressionSettings
    compare: bool

    def __call__(self, sample: Sample) -> Steps:
        """Ask about all objects at the same time, then for more expressions, then compare."""
        with naming(sample.where):
            image = read_picture(self.images / sample.filename)
        learnt = [one for one in sample.instances if not one.ignored and crop(image, one.bbox)]
        objects, small = self._objects(learnt, image)
        notes = [(TOO_SMALL, sample.where)] * small
        replies = yield from self._describe(objects)
        described = [one for one in objects if one.caption]
        replies += yield from self._diversify(described)
        notes += left_out(replies, sample.where)
        pairs = [Pair(one.close_up, text) for one in described for _, text in one.expressions]
        scores = yield [Call(FILTER, pair) for pair in pairs if self.compare]
        if not described:
            return Outcome(None, notes=(*notes, (NOTHING_LEFT, sample.where)))
        row = {
            "image_path": sample.filename,
            "height": image.height,
            "width": image.width,
            "where": sample.where,
            "objects": _rows_of_objects(described, scores),
            "all": [_location(number, instance) for number, instance in enumerate(learnt)],
        }
        return Outcome(row, notes=tuple(notes))

    def _objects(self, learnt: Sequence[Instance], image: Image.Image) -> tuple[list[_Object], int]:
        """The objects to be described, and how many of the largest are too small for it."""
        objects = []
        numbers = {id(instance): number for number, instance in enumerate(learnt)}
        largest = largest_instances(learnt, self.settings.objects)
        for instance, close_up in close_ups(image, largest, self.settings.min_side):
            (marked,) = edited_pictures(image, [instance.bbox], ImageEdit.HIGHLIGHT)
            objects.append(_Object(instance, numbers[id(instance)], close_up, marked))
        return objects, len(largest) - len(objects)

    def _describe(self, objects: list[_Object]) -> Generator[list[Call], list[Any], list[Reply]]:
        """A description, a short and a long expression of every object."""
        caption = partial(accepted_caption, min_words=self.settings.min_words)
        questions = [
            Question(CAPTIONER, ask(prompt.replace("{name}", one.name), shown), read, kind)
            for one in objects
            for prompt, shown, read, kind in (
                (CAPTION, one.marked, caption, "object's description"),
                (SHORT, one.close_up, accepted_phrase, "short expression"),
                (LONG, one.marked, accepted_expression, "long expression"),
            )
        ]
        replies = yield from accepted_replies(questions, self.settings.attempts)
        for number, one in enumerate(objects):
            whole, short, long = replies[3 * number : 3 * number + 3]
            one.caption = whole.value or ""
            said = ((VLM_SHORT, short.value), (VLM_LONG, long.value))
            one.expressions = [(source, text) for source, text in said if text]
        return replies

    def _diversify(self, objects: list[_Object]) -> Generator[list[Call], list[Any], list[Reply]]:
        """Further expressions of the objects that have one."""
        objects = [one for one in objects if one.expressions and self.settings.more]
        questions = []
        for one in objects:
            known = {"name": one.name, "count": str(self.settings.more)}
            known |= {"expression": one.expressions[-1][1], "caption": one.caption}
            prompt = MORE.format(**known)
            read = partial(accepted_lines, count=self.settings.more)
            questions.append(Question(DIVERSIFIER, ask(prompt), read, "further expressions"))
        replies = yield from accepted_replies(questions, self.settings.attempts)
        for one, reply in zip(objects, replies, strict=True):
            known_texts = {text.lower() for _, text in one.expressions}
            new = [text for text in reply.value or () if text.lower() not in known_texts]
            one.expressions += [(LLM, text) for text in new]
        return replies


def _location(number: int, instance: Instance) -> Record:
    x1, y1, x2, y2 = instance.bbox
    box = [x1, y1, x2 - x1, y2 - y1]
    return {"id": number, "category": name_of(instance), "bbox": box}


def _rows_of_objects(described: list[_Object], scores: list[float]) -> list[Record]:
    remaining = iter(scores)
    return [
        {
            "id": one.number,
            "caption": one.caption,
            "expressions": [
                {"source": source, "text": text, "similarity": next(remaining, None)}
                for source, text in one.expressions
            ],
        }
        for one in described
    ]


def _similarities(journal: Journal) -> Iterator[float]:
    for outcome in journal.outcomes():
        for one in outcome.row["objects"] if outcome.row is not None else ():
            for expression in one["expressions"]:
                if expression["similarity"] is not None:
                    yield expression["similarity"]


def records_of(row: Record, least: float, others: int, ledger: Ledger) -> Iterator[Record]:
    """The records of a picture: boxes as x, y, width and height in pixels, as the agent has them.

    Args:
        row: of an :class:`ExpressionProgram`.
        least: the similarity that an expression must reach.
        others: further objects that a record names, at most.
        ledger: counts those that do not.
    """
    for one in row["objects"]:
        chosen = row["all"][one["id"]]
        further = [other for other in row["all"] if other is not chosen][:others]
        for expression in one["expressions"]:
            similarity = expression["similarity"]
            if similarity is not None and similarity < least:
                ledger.note(UNLIKE, row["where"])
                continue
            yield {
                "image_path": row["image_path"],
                "height": row["height"],
                "width": row["width"],
                "raw_expression": expression["text"],
                "global_caption": one["caption"],
                "object_locations": {"chosen_object": chosen, "other_objects": further},
                "source": expression["source"],
            }
