"""Levels 2 to 4 of GranD: short captions and relations, a dense caption, context.

Each takes the record of the level below and adds its fields.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from llmdet.chat import ask
from llmdet.data_engines.caption_rules import accepted_caption
from llmdet.data_engines.flow import Call, Steps
from llmdet.data_engines.grand.grounding import Grounder
from llmdet.data_engines.grand.prompts import (
    AFFORDANCES,
    CONTEXT,
    DENSE,
    RELATIONS,
    REWRITE,
    accepted_affordances,
    accepted_relations,
    describe_objects,
    objects_of,
    scene_graph,
    short_caption,
)
from llmdet.data_engines.grand.settings import (
    CAPTIONER,
    RELATER,
    WRITER,
    CaptionSettings,
    ContextSettings,
    DescriptionSettings,
)
from llmdet.data_engines.journal import Outcome
from llmdet.data_engines.object_words import MarkedText, phrases_of, stems
from llmdet.data_engines.questions import Question, accepted_replies, left_out
from llmdet.datasets.pictures import read_picture
from llmdet.errors import naming

UNSUPPORTED = "phrase of a dense caption that no box supports, removed"
NOTHING_SUPPORTED = "dense caption of which no sentence is supported, left out"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SHORT_WORDS = 3  # of a short caption, at least

Record = dict[str, Any]


def one_line(text: str) -> str:
    """A text with single blanks, so that places in it are those of its sentences."""
    return " ".join(text.split())


@dataclass(frozen=True)
class CaptionProgram:
    """Level 2: short captions with the objects of their phrases, and relations.

    Attributes:
        folder: of the pictures.
        settings: what to ask.
    """

    folder: Path
    settings: CaptionSettings

    def __call__(self, record: Record) -> Steps:
        """Ask for captions and relations at the same time, then look for what captions name."""
        filename = record["file_name"]
        with naming(filename):
            image = read_picture(self.folder / filename)
        read = partial(accepted_caption, min_words=_SHORT_WORDS)
        questions = [
            Question(CAPTIONER, ask(short_caption(number), image), read, "short caption")
            for number in range(self.settings.captions)
        ]
        listed = record["objects"]
        if self.settings.relations and len(listed) > 1:
            known = describe_objects(listed, image.size)
            prompt = RELATIONS.format(objects=known, count=self.settings.relations)
            related = partial(accepted_relations, objects=len(listed), most=self.settings.relations)
            questions.append(Question(RELATER, ask(prompt, image), related, "relations"))
        replies = yield from accepted_replies(questions, self.settings.attempts)
        captions = [one_line(r.value) for r in replies[: self.settings.captions] if r.value]
        captions = list(dict.fromkeys(captions))
        relations = [one for r in replies[self.settings.captions :] for one in r.value or ()]
        grounder = Grounder(record, image, self.settings.overlap)
        yield from grounder.look([phrase for text in captions for phrase in phrases_of(text)])
        added = {
            "relationships": [relation_of(one, listed) for one in relations],
            "short_captions": [
                {"caption": text, "details": grounder.details(text)} for text in captions
            ],
        }
        return Outcome(record | added, notes=left_out(replies, filename))


def relation_of(said: MarkedText, objects: Sequence[Record]) -> Record:
    """A sentence about objects, as GranD writes it."""
    return {
        "object_ids": [objects[index]["id"] for index in objects_of(said)],
        "floating_object_ids": [],
        "summary": said.text,
        "grounding": [
            {"phrase": said.text[begin:end], "object_ids": [objects[i]["id"] for i in indices]}
            for (begin, end), indices in said.named
        ],
    }


@dataclass
class _Draft:
    """A dense caption on its way."""

    text: str
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DescriptionProgram:
    """Level 3: a dense caption, of which stays what boxes support.

    Attributes:
        folder: of the pictures.
        settings: what to ask.
    """

    folder: Path
    settings: DescriptionSettings

    def __call__(self, record: Record) -> Steps:
        """Have a caption written, and check whatever it names."""
        filename = record["file_name"]
        with naming(filename):
            image = read_picture(self.folder / filename)
        text, notes = yield from self._write(
            DENSE.format(graph=scene_graph(record)), filename, self.settings.attempts
        )
        if text is None:
            return Outcome(record, notes=notes)
        grounder = Grounder(record, image, self.settings.overlap, by_noun=False)
        draft = yield from self._check(_Draft(text), grounder, filename)
        notes += ((UNSUPPORTED, filename),) * len(draft.removed)
        if not draft.text:
            return Outcome(record, notes=(*notes, (NOTHING_SUPPORTED, filename)))
        caption = {"caption": draft.text, "details": grounder.details(draft.text)}
        added = {"dense_caption": caption, "removed_phrases": draft.removed}
        return Outcome(record | added, notes=notes)

    def _write(
        self, prompt: str, filename: str, attempts: int
    ) -> Generator[Sequence[Call], list[Any], tuple[str | None, tuple[tuple[str, str], ...]]]:
        read = partial(accepted_caption, min_words=self.settings.min_words)
        question = Question(WRITER, ask(prompt), read, "dense caption")
        (reply,) = yield from accepted_replies([question], attempts)
        text = None if reply.fault else one_line(reply.value)
        return text, left_out([reply], filename)

    def _check(
        self, draft: _Draft, grounder: Grounder, filename: str
    ) -> Generator[Sequence[Call], list[Any], _Draft]:
        """Have what no box supports written out of a caption, then remove what is left of it."""
        for _ in range(self.settings.rewrites):
            yield from grounder.look(phrases_of(draft.text))
            missing = unsupported(draft.text, grounder)
            if not missing:
                return draft
            prompt = REWRITE.format(caption=draft.text, phrases="; ".join(missing))
            text, _ = yield from self._write(prompt, filename, 1)
            if text is None:  # what it was is still better than nothing
                break
            kept = {phrase.text.casefold() for phrase in phrases_of(text)}
            draft.removed += [phrase for phrase in missing if phrase.casefold() not in kept]
            draft.text = text
        yield from grounder.look(phrases_of(draft.text))
        sentences = []
        for sentence in _SENTENCE_END.split(draft.text):
            missing = unsupported(sentence, grounder)
            draft.removed += missing
            sentences += [] if missing else [sentence]
        draft.text = " ".join(sentences)
        draft.removed = list(dict.fromkeys(draft.removed))
        return draft


def unsupported(text: str, grounder: Grounder) -> list[str]:
    """Phrases of a text that neither an object nor a box is for, nor the kind of place."""
    place = stems(grounder.record.get("landmark", {}).get("fine_category", ""))
    return list(
        dict.fromkeys(
            phrase.text
            for phrase in phrases_of(text)
            if not grounder.support(phrase.text) and stems(phrase.text)[-1:] != place[-1:]
        )
    )


@dataclass(frozen=True)
class ContextProgram:
    """Level 4: what goes beyond the picture, and what its objects are for.

    Attributes:
        settings: what to ask.
    """

    settings: ContextSettings

    def __call__(self, record: Record) -> Steps:
        """Ask both at the same time; without a description there is nothing to add to."""
        caption = description_of(record)
        if not caption:
            return Outcome(record)
        read = partial(accepted_caption, min_words=self.settings.min_words)
        prompt = CONTEXT.format(caption=caption)
        questions = [Question(WRITER, ask(prompt), read, "context")]
        listed = record["objects"]
        if self.settings.affordances and listed:
            known = describe_objects(listed, (record["width"], record["height"]))
            prompt = AFFORDANCES.format(
                objects=known, caption=caption, count=self.settings.affordances
            )
            usable = partial(
                accepted_affordances, objects=len(listed), most=self.settings.affordances
            )
            questions.append(Question(WRITER, ask(prompt), usable, "affordances"))
        context, *usages = yield from accepted_replies(questions, self.settings.attempts)
        added: Record = {}
        if not context.fault:
            added["additional_context"] = one_line(context.value)
        added["affordances"] = [
            {"object_ids": [listed[i]["id"] for i in objects_of(said)], "text": said.text}
            for reply in usages
            for said in reply.value or ()
        ]
        return Outcome(record | added, notes=left_out([context, *usages], record["file_name"]))


def description_of(record: Record) -> str:
    """The dense caption, else the first short one; "" without either."""
    if "dense_caption" in record:
        return str(record["dense_caption"]["caption"])
    return next((str(one["caption"]) for one in record.get("short_captions", ())), "")
