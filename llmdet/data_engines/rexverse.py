"""Rexverse: conversations that name objects, out of pictures (ChatRex, arXiv 2411.18363, 4.1).

A vision model says a sentence about a picture; a detector finds what the sentence names; the vision
model describes each box; a language model judges by the description whether the box is what was
looked for, and rewrites it to an expression. What remains becomes conversations.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from llmdet.chat import ChatModel, ask
from llmdet.data_engines.annotations import close_ups
from llmdet.data_engines.caption_rules import accepted_caption
from llmdet.data_engines.detections import BoxSource, Found, Search, apart
from llmdet.data_engines.flow import Call, Model, Steps, identities
from llmdet.data_engines.journal import Outcome
from llmdet.data_engines.object_words import distinct, list_objects, phrases_of
from llmdet.data_engines.pictures import PictureSet
from llmdet.data_engines.questions import Question, Reply, accepted_replies, left_out
from llmdet.data_engines.rexverse_prompts import (
    CAPTION,
    CHECK,
    CONVERSE,
    DESCRIBE,
    SCREEN,
    accepted_dialogue,
    accepted_verdict,
    accepted_yes_or_no,
)
from llmdet.data_engines.rexverse_rows import RexverseOutput, rows_of
from llmdet.data_engines.runs import WHOLE, Run, by_name, journal_of
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.pictures import read_picture
from llmdet.errors import ConfigError, DataError, naming
from llmdet.prompts.noun_phrases import choose_method

#: Counted up whenever the same answers would give other rows.
VERSION = 1
#: Who is asked, and what finds boxes.
CAPTIONER, DESCRIBER, CHECKER, WRITER = "captioner", "describer", "checker", "writer"
BOXES = "boxes"
SMALL, UNSUITED = "picture too small", "picture that the captioner finds unsuited"
NO_PHRASE, UNFINDABLE = "caption that names no object", "picture whose boxes are not known"
NOT_FOUND = "phrase without a box"
TOO_SMALL = "region too small to be described"
ANOTHER_THING = "region that is not what was looked for"
NOTHING_LEFT = "picture without a region"


@dataclass(frozen=True)
class RexverseSettings:
    """What is asked, and which answers are taken.

    Attributes:
        min_picture_side: a picture's shorter side in pixels; smaller ones are left out.
        screen: ask whether the picture is a scene, and leave out those that are none.
        phrases: of a caption to be looked for, the first ones.
        overlap: IoU above which two boxes stand for the same thing.
        regions: of a picture, those with the best scores.
        min_side: a region's shorter side in pixels; smaller ones show nothing.
        margin: of a region's sides, shown around it.
        attempts: how often a question is asked before it stays without an answer.
        min_words: the least number of words about a region.
        least_words: of an expression.
        most_words: of an expression.
        dialogue: questions and answers of a picture; 0 asks for none.
    """

    min_picture_side: int = 224
    screen: bool = False
    phrases: int = 10
    overlap: float = 0.8
    regions: int = 20
    min_side: int = 16
    margin: float = 0.2
    attempts: int = 3
    min_words: int = 6
    least_words: int = 5
    most_words: int = 10
    dialogue: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.least_words <= self.most_words:
            raise ConfigError(
                f"expressions of {self.least_words} to {self.most_words} words: the first number "
                "is at least 1 and at most the second"
            )

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that must have a language model."""
        return (CAPTIONER, DESCRIBER, CHECKER, *((WRITER,) if self.dialogue else ()))


def make_rexverse(
    pictures: PictureSet,
    out: Path,
    models: Mapping[str, ChatModel],
    boxes: BoxSource,
    settings: RexverseSettings,
    output: RexverseOutput,
    ledger: Ledger,
    run: Run = WHOLE,
) -> int:
    """Write conversations about the objects of pictures as JSONL rows.

    What was said is kept in ``OUT.partial`` until all is there; a second call with the same
    pictures, models and settings goes on from there.

    Args:
        pictures: what to look at.
        out: the JSONL file to write.
        models: by role, see :attr:`RexverseSettings.roles`.
        boxes: finds what captions name.
        settings: what to ask.
        output: how it is put into conversations.
        ledger: counts what is left out, by cause.
        run: how pictures go through, and which.

    Returns:
        The number of rows.

    Raises:
        ConfigError: ``OUT.partial`` was begun with something else, which is named.
        DataError: a picture is broken and ``ledger`` permits no more of them.
    """
    asked: dict[str, Any] = {role: models[role] for role in settings.roles} | {BOXES: boxes}
    decided = {
        "rexverse engine": VERSION,
        "pictures": pictures.identity,
        "noun phrases": choose_method("auto"),
        "shard": str(run.shard),
        **identities(asked),
        **by_name(settings),
    }
    journal = journal_of(out, decided)
    program = RexverseProgram(pictures.folder, settings)
    flow_models: dict[str, Model] = asked
    names = pictures.filenames
    run.take(names, len(names), program, flow_models, journal, ledger)
    return journal.finish(out, ledger, rows_of=partial(rows_of, output=output))


@dataclass(frozen=True)
class _Region:
    """A box on its way, and what was said of it."""

    found: Found
    close_up: Image.Image
    description: str = ""
    expression: str = ""


@dataclass
class _Picture:
    """A picture on its way, and what was left out of it."""

    filename: str
    image: Image.Image
    caption: str = ""
    regions: list[_Region] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def note(self, cause: str, count: int = 1) -> None:
        self.notes += [(cause, self.filename)] * count

    def left_out(self, cause: str = "") -> Outcome:
        if cause:
            self.note(cause)
        return Outcome(None, notes=tuple(self.notes))


#: A part of a program, with what it gives by ``yield from``.
_Part = Generator[Sequence[Call], list[Any], Any]


@dataclass(frozen=True)
class RexverseProgram:
    """Turns the name of a picture into a record of its objects and what was said of them.

    Attributes:
        folder: of the pictures.
        settings: what to ask.
    """

    folder: Path
    settings: RexverseSettings

    def __call__(self, filename: str) -> Steps:
        """Ask about the picture, find what was named, ask about each box."""
        with naming(filename):
            picture = _Picture(filename, read_picture(self.folder / filename))
        if min(picture.image.size) < self.settings.min_picture_side:
            return picture.left_out(SMALL)
        suited = yield from self._screen(picture)
        if not suited:
            return picture.left_out()
        read = partial(accepted_caption, min_words=3)
        about = Question(CAPTIONER, ask(CAPTION, picture.image), read, "caption")
        caption = (yield from self._ask(picture, [about]))[0].value
        if caption is None:
            return picture.left_out()
        picture.caption = " ".join(caption.split())
        phrases = distinct(phrases_of(picture.caption), self.settings.phrases)
        if not phrases:
            return picture.left_out(NO_PHRASE)
        yield from self._find(picture, tuple(phrase.text for phrase in phrases))
        yield from self._describe(picture)
        yield from self._check(picture)
        if not picture.regions:
            return picture.left_out(NOTHING_LEFT)
        dialogue = yield from self._converse(picture)
        record = {
            "filename": filename,
            "height": picture.image.height,
            "width": picture.image.width,
            "caption": picture.caption,
            "phrases": [{"phrase": one.text, "span": one.span} for one in phrases],
            "regions": [_record_of(region) for region in picture.regions],
            "dialogue": dialogue,
        }
        return Outcome(record, notes=tuple(picture.notes))

    def _ask(self, picture: _Picture, questions: Sequence[Question]) -> _Part:
        """Replies to questions; those without an accepted answer are noted."""
        replies: list[Reply] = yield from accepted_replies(questions, self.settings.attempts)
        picture.notes += left_out(replies, picture.filename)
        return replies

    def _screen(self, picture: _Picture) -> _Part:
        if not self.settings.screen:
            return True
        question = Question(CAPTIONER, ask(SCREEN, picture.image), accepted_yes_or_no, "screening")
        (reply,) = yield from self._ask(picture, [question])
        if reply.value is False:
            picture.note(UNSUITED)
        return reply.value

    def _find(self, picture: _Picture, phrases: tuple[str, ...]) -> _Part:
        """Have boxes found, and keep those that are large enough to be described."""
        (found,) = yield [Call(BOXES, Search(picture.filename, picture.image, phrases))]
        if isinstance(found, DataError):
            picture.notes.append((UNFINDABLE, f"{picture.filename}: {found}"))
            return
        seen = {one.phrase for one in found}
        picture.note(NOT_FOUND, sum(phrase not in seen for phrase in phrases))
        best = apart(found, self.settings.overlap)[: self.settings.regions]
        large = [one for one in best if min(one.sides) >= self.settings.min_side]
        picture.note(TOO_SMALL, len(best) - len(large))
        shown = close_ups(picture.image, large, 1, self.settings.margin)
        picture.regions = [_Region(one, close_up) for one, close_up in shown]

    def _describe(self, picture: _Picture) -> _Part:
        read = partial(accepted_caption, min_words=self.settings.min_words)
        questions = [
            Question(
                DESCRIBER,
                ask(_filled(DESCRIBE, picture, region), region.close_up),
                read,
                "region's description",
            )
            for region in picture.regions
        ]
        replies = yield from self._ask(picture, questions)
        described = zip(picture.regions, replies, strict=True)
        picture.regions = [
            replace(region, description=" ".join(reply.value.split()))
            for region, reply in described
            if not reply.fault
        ]

    def _check(self, picture: _Picture) -> _Part:
        """Keep the regions that are what was looked for, with their expressions."""
        least, most = self.settings.least_words, self.settings.most_words
        read = partial(accepted_verdict, least=least, most=most)
        words = {"least": str(least), "most": str(most)}
        questions = [
            Question(CHECKER, ask(_filled(CHECK, picture, region, **words)), read, "check")
            for region in picture.regions
        ]
        replies = yield from self._ask(picture, questions)
        picture.note(ANOTHER_THING, sum(reply.value == "" for reply in replies))
        picture.regions = [
            replace(region, expression=reply.value)
            for region, reply in zip(picture.regions, replies, strict=True)
            if reply.value
        ]

    def _converse(self, picture: _Picture) -> _Part:
        count = self.settings.dialogue
        if not count:
            return []
        known = [
            f"{one.found.phrase}: {one.expression}. {one.description}" for one in picture.regions
        ]
        prompt = CONVERSE.format(caption=picture.caption, objects=list_objects(known), count=count)
        read = partial(accepted_dialogue, objects=len(known), most=count)
        (reply,) = yield from self._ask(
            picture, [Question(WRITER, ask(prompt), read, "conversation")]
        )
        return reply.value or []


def _filled(prompt: str, picture: _Picture, region: _Region, **words: str) -> str:
    return prompt.format(
        caption=picture.caption,
        phrase=region.found.phrase,
        description=region.description,
        **words,
    )


def _record_of(region: _Region) -> dict[str, Any]:
    return {
        "bbox": region.found.bbox,
        "phrase": region.found.phrase,
        "score": region.found.score,
        "description": region.description,
        "expression": region.expression,
    }
