"""What samples of any format say of their pictures, for questions about candidate objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmdet.datasets.coco_file import is_box
from llmdet.datasets.formats.samples import Instance, Sample
from llmdet.datasets.formats.tsv import ABSENT
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.numbers import is_length
from llmdet.datasets.regions.pictures import (
    MARKED_TEXT,
    NO_SIZE,
    Picture,
    PictureCaption,
    RegionObject,
    clean_text,
    clip_box,
    phrases_of,
)
from llmdet.datasets.retrieval.settings import RetrievalSettings
from llmdet.datasets.row_targets import is_usable
from llmdet.errors import DataError
from llmdet.prompts.class_names import clean_class_name

CUT_PHRASE = "phrase of a sentence in several pieces, or inside another one"
#: LVIS: classes of which not every object of the picture is annotated; of which none is there.
_NOT_EXHAUSTIVE, _NEGATIVE = "not_exhaustive_category_ids", "neg_category_ids"


def read_scene(
    sample: Sample,
    settings: RetrievalSettings,
    names: Mapping[Any, str] | None,
    ledger: Ledger,
) -> Picture | None:
    """What a sample says of its picture, None where the size of the picture is not known.

    Args:
        sample: of any format.
        settings: say what sentences and proposals mean.
        names: id -> cleaned name of each class; None where phrases are no names of classes.
        ledger: counts what cannot be asked about.
    """
    if not is_length(sample.width) or not is_length(sample.height):
        ledger.note(NO_SIZE, sample.where)
        return None
    picture = Picture(sample.filename, sample.width, sample.height)
    picture.identity = _identity(sample, settings)
    partial = {(names or {}).get(key) for key in sample.extra.get(_NOT_EXHAUSTIVE, ())}
    kept = []
    for instance in sample.instances:
        box = _usable(instance.bbox, picture, ledger)
        if box is None:
            continue
        item = RegionObject(box, ignored=instance.ignored)
        if names is not None:
            item.name = clean_class_name(str(instance.phrase))
            item.ignored |= item.name in partial
        else:
            item.texts = _texts(instance, sample, settings, ledger)
        picture.objects.append(item)
        kept.append((instance, box))
    if names is not None:
        ids = sample.extra.get(_NEGATIVE, ())
        picture.absent = [names[key] for key in ids if key in names]
    elif sample.extra.get(ABSENT):
        picture.absent = _sayable([sample.caption or ""], sample, ledger)
    if settings.task == "caption" and sample.caption and kept:
        picture.captions = _caption(sample, kept, ledger)
    _add_others(picture, sample, settings, ledger)
    return picture


def _identity(sample: Sample, settings: RetrievalSettings) -> Any:
    own = sample.extra.get("id", sample.fields.get("image_id"))
    if settings.proposals_of == "sentence":
        return own
    return sample.extra.get("original_id", own)


def _usable(box: list[float], picture: Picture, ledger: Ledger) -> list[float] | None:
    """The part of a box that lies in the picture, None where that is nothing."""
    size = picture.width, picture.height
    if not is_usable(box, size, ledger):
        return None
    inside = clip_box(box, picture)
    return inside if is_usable(inside, size, ledger) else None


def _texts(
    instance: Instance, sample: Sample, settings: RetrievalSettings, ledger: Ledger
) -> list[str]:
    said = [sample.caption or ""] if settings.whole_expressions else phrases_of(instance)
    return _sayable(said, sample, ledger)


def _sayable(texts: list[str], sample: Sample, ledger: Ledger) -> list[str]:
    """Texts that say something, without what a model would take for a mark."""
    cleaned = [text for text in map(clean_text, texts) if text]
    good = [text for text in cleaned if "<" not in text]
    if len(good) < len(cleaned):
        ledger.note(MARKED_TEXT, sample.where, len(cleaned) - len(good))
    return good


def _caption(
    sample: Sample, kept: list[tuple[Instance, list[float]]], ledger: Ledger
) -> list[PictureCaption]:
    """The sample's sentence with its phrases in order, none inside another."""
    text = sample.caption or ""
    if not _sayable([text], sample, ledger):
        return []
    of_span: dict[tuple[int, int], list[list[float]]] = {}
    for instance, box in kept:
        if len(instance.spans or ()) == 1 and not instance.ignored:
            start, end = instance.spans[0]  # type: ignore[index]
            of_span.setdefault((start, end), []).append(box)
        elif not instance.ignored:
            ledger.note(CUT_PHRASE, sample.where)
    spans: list[tuple[int, int]] = []
    for start, end in sorted(of_span, key=lambda span: (span[0], -span[1])):
        if spans and start < spans[-1][1]:
            ledger.note(CUT_PHRASE, sample.where)
        elif text[start:end].strip():
            spans.append((start, end))
    if not spans:
        return []
    return [PictureCaption(text, list(map(list, spans)), [of_span[span] for span in spans])]


def _add_others(
    picture: Picture, sample: Sample, settings: RetrievalSettings, ledger: Ledger
) -> None:
    """Boxes of a row's ``proposals``: objects that nothing is said of, or a detector's."""
    for number, proposal in enumerate(sample.fields.get("proposals", ())):
        if not isinstance(proposal, list) or not is_box(proposal[:4]):
            raise DataError(f"{sample.where}: proposals[{number}] is no box: {proposal!r}")
        box = _usable(proposal[:4], picture, ledger)
        if box is None:
            continue
        if settings.others:
            picture.objects.append(RegionObject(box))
        else:
            picture.proposals.append(box)
