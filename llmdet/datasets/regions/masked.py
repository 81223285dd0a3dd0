"""Rows whose answers have masks, and captions of whole pictures, made as samples stream past.

A task of :data:`~llmdet.prompts.mask_tasks.MASK_TASKS` needs nothing but the sample itself, so that
nothing is held but the questions of one picture.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.masks import join_masks, mask_problem
from llmdet.datasets.numbers import is_length
from llmdet.datasets.regions.pictures import (
    MARKED_TEXT,
    NO_SIZE,
    annotated_mask,
    clean_text,
    has_mark,
    phrases_of,
)
from llmdet.datasets.regions.selection import BEYOND_IMAGE, CROWD
from llmdet.datasets.regions.settings import RegionSettings
from llmdet.datasets.sample import Mask
from llmdet.prompts.class_names import clean_class_name
from llmdet.prompts.mask_tasks import MASK_TASKS, NO_TARGET
from llmdet.prompts.masks import splice_masks

NO_MASK = "text with an object that has no readable mask"
EMPTY_MASK = "text whose mask has no pixel"
NO_PLACE = "object that no words of the caption name"
OVERLAP = "phrase that overlaps one before it"
NO_PHRASE = "caption without a phrase that has a mask"
NO_CAPTION = "picture without a caption"

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class MaskQuestion:
    """A question about a picture; marks of its answer count its own masks from 0."""

    text: str
    answer: str
    masks: tuple[Mask, ...]
    size: Size | None
    filename: str


def mask_rows(source: Source, settings: RegionSettings, ledger: Ledger) -> Iterator[dict[str, Any]]:
    """Rows of one of :data:`MASK_TASKS`.

    Args:
        source: annotations of any format.
        settings: what is asked; "segment" asks up to ``turns`` questions in a row, those of
            samples of one picture that follow each other; the others one.
        ledger: counts by cause what is not asked about.
    """
    named = source.categories is not None
    for filename, samples in groupby(source.samples, key=lambda sample: sample.filename):
        questions = list(_questions(samples, settings, named, ledger))
        if settings.per_image is not None and len(questions) > settings.per_image:
            ledger.note(BEYOND_IMAGE, filename, len(questions) - settings.per_image)
            drawn = _generator(settings, filename, "select")
            chosen = sorted(drawn.sample(range(len(questions)), settings.per_image))
            questions = [questions[number] for number in chosen]
        turns = settings.turns if settings.task == "segment" else 1
        for start in range(0, len(questions), turns):
            yield _row(questions[start : start + turns], settings)


def _questions(
    samples: Iterable[Sample], settings: RegionSettings, named: bool, ledger: Ledger
) -> Iterator[MaskQuestion]:
    for number, sample in enumerate(samples):
        drawn = _generator(settings, sample.filename, f"ask/{number}")
        if settings.task == "describe":
            yield from _description(sample, settings, drawn, ledger)
        elif not is_length(sample.width) or not is_length(sample.height):
            ledger.note(NO_SIZE, sample.where)
        elif settings.task == "gcg":
            yield from _grounded_caption(sample, settings, drawn, ledger)
        else:
            yield from _segmentations(sample, settings, named, drawn, ledger)


def _description(
    sample: Sample, settings: RegionSettings, drawn: random.Random, ledger: Ledger
) -> Iterator[MaskQuestion]:
    caption = (sample.caption or "").strip()
    if not caption:
        ledger.note(NO_CAPTION, sample.where)
    elif has_mark(caption):
        ledger.note(MARKED_TEXT, sample.where)
    else:
        size = None if sample.height is None or sample.width is None else _size(sample)
        question = _draw(MASK_TASKS["describe"].wordings, settings, drawn)
        yield MaskQuestion(question, caption, (), size, sample.filename)


def _grounded_caption(
    sample: Sample, settings: RegionSettings, drawn: random.Random, ledger: Ledger
) -> Iterator[MaskQuestion]:
    """The caption with a mask behind each phrase.

    Objects of one phrase share a mask; of phrases that overlap the first one stays, of two that
    begin together the longer.
    """
    caption = sample.caption or ""
    if not caption.strip() or has_mark(caption):
        ledger.note(MARKED_TEXT if caption.strip() else NO_CAPTION, sample.where)
        return
    masks = _masks_of_spans(sample, ledger)
    spans = list(masks)
    _, left_out = splice_masks(caption, spans)
    if left_out:
        ledger.note(OVERLAP, sample.where, len(left_out))
    kept = sorted(set(spans) - {spans[number] for number in left_out})
    if not kept:
        ledger.note(NO_PHRASE, sample.where)
        return
    answer, _ = splice_masks(caption, kept)
    question = _draw(MASK_TASKS["gcg"].wordings, settings, drawn)
    found = tuple(masks[span] for span in kept)
    yield MaskQuestion(question, answer.strip(), found, _size(sample), sample.filename)


def _masks_of_spans(sample: Sample, ledger: Ledger) -> dict[tuple[int, int], Mask]:
    """One mask for each part of the caption that has objects; of several spans the first counts."""
    owners: dict[tuple[int, int], list[Instance]] = {}
    for instance in sample.instances:
        if instance.ignored:
            ledger.note(CROWD, sample.where)
        elif not instance.spans:
            ledger.note(NO_PLACE, sample.where)
        else:
            begin, end = instance.spans[0]
            owners.setdefault((begin, end), []).append(instance)
    found = {span: _mask(items, sample, ledger) for span, items in owners.items()}
    return {span: mask for span, mask in found.items() if mask is not None}


def _segmentations(
    sample: Sample,
    settings: RegionSettings,
    named: bool,
    drawn: random.Random,
    ledger: Ledger,
) -> Iterator[MaskQuestion]:
    task = MASK_TASKS["segment"]
    for text, items in _topics(sample, settings, named, ledger):
        answer, masks = NO_TARGET, tuple[Mask, ...]()
        if items:
            mask = _mask(items, sample, ledger)
            if mask is None:
                continue
            answer, masks = _draw(task.answers, settings, drawn), (mask,)
        question = _draw(task.wordings, settings, drawn).format(text=text)
        yield MaskQuestion(question, answer, masks, _size(sample), sample.filename)


def _topics(
    sample: Sample, settings: RegionSettings, named: bool, ledger: Ledger
) -> Iterator[tuple[str, Sequence[Instance]]]:
    """What is looked for, and all objects that are it.

    An expression means the objects of its sample, none of them if it has none. A class, or a
    phrase, means all objects of that name, whatever its case.
    """
    if settings.whole_expressions and not named:
        given = [(" ".join((sample.caption or "").split()), sample.instances)]
    else:
        given = _by_name(sample, named, ledger)
    for text, items in given:
        if not text:
            ledger.note(NO_CAPTION, sample.where)
        elif has_mark(text):
            ledger.note(MARKED_TEXT, sample.where)
        else:
            yield text, items


def _by_name(sample: Sample, named: bool, ledger: Ledger) -> list[tuple[str, list[Instance]]]:
    found: dict[str, tuple[str, list[Instance]]] = {}
    for instance in sample.instances:
        if named:  # a crowd is of its class as well
            texts = [clean_class_name(str(instance.phrase))]
        elif instance.ignored:
            ledger.note(CROWD, sample.where)
            continue
        else:
            texts = [clean_text(text) for text in phrases_of(instance)]
        for text in texts:
            found.setdefault(text.casefold(), (text, []))[1].append(instance)
    return list(found.values())


def _mask(items: Sequence[Instance], sample: Sample, ledger: Ledger) -> Mask | None:
    """All pixels of objects; None where one of them has no mask, or none has a pixel."""
    size = _size(sample)
    masks = []
    for item in items:
        mask = annotated_mask(item)
        if mask is None or mask_problem(mask, size) is not None:
            ledger.note(NO_MASK, sample.where)
            return None
        masks.append(mask)
    joined = join_masks(masks, size)
    if joined is None:
        ledger.note(EMPTY_MASK, sample.where)
    return joined


def _row(questions: Sequence[MaskQuestion], settings: RegionSettings) -> dict[str, Any]:
    """Questions of one picture, their masks numbered through."""
    regions: list[dict[str, Any]] = []
    turns: list[dict[str, str]] = []
    for question in questions:
        answer, first = question.answer, len(regions)
        for number in reversed(range(len(question.masks))):
            answer = answer.replace(f"<mask:{number}>", f"<mask:{first + number}>")
        answer = answer.replace("<mask>", f"<mask:{first}>")
        regions += [{"segmentation": mask} for mask in question.masks]
        text = question.text if turns else f"<image>\n{question.text}"
        turns += [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    row: dict[str, Any] = {"filename": settings.folder + questions[0].filename}
    size = questions[0].size
    if size is not None:
        row |= {"height": size[0], "width": size[1]}
    return row | {"task": settings.task, "regions": regions, "conversations": turns}


def _size(sample: Sample) -> Size:
    assert sample.height is not None
    assert sample.width is not None
    return sample.height, sample.width


def _draw(wordings: Sequence[str], settings: RegionSettings, generator: random.Random) -> str:
    return wordings[0] if settings.one_wording else generator.choice(wordings)


def _generator(settings: RegionSettings, filename: str, purpose: str) -> random.Random:
    """What is drawn for a picture, whatever stands before it in the file."""
    return random.Random(f"{settings.seed}/{settings.task}/{purpose}/{filename}")
