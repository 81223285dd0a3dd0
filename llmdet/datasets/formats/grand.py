"""GranD's annotations, one JSON for each picture (GLaMM, arXiv 2311.03356, section 4).

``grand`` reads short and dense captions, whose phrases have the masks of the objects that they
name; ``grand_objects`` the objects, described by their attributes and labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdet.datasets.fields import Fields
from llmdet.datasets.formats.mdetr import span_problem
from llmdet.datasets.formats.samples import Instance, ReadOptions, Sample, Source, image_size
from llmdet.datasets.jsonl import IndexedJsonl
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.masks import join_masks, mask_box, mask_problem
from llmdet.datasets.numbers import is_number
from llmdet.datasets.sample import Mask
from llmdet.errors import DataError
from llmdet.utils.files import read_json

NO_PLACE = "phrase whose place is not in the caption"
NO_OBJECT = "phrase without a known object or box"
NO_CAPTION = "picture without a caption"
NO_OBJECTS = "picture without objects"
NO_WORDS = "object without label and attribute"
_SENTENCE_END = ". "
_NAMES = ("file_name", "filename", "image")


def read_grand(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open captions: a sample for each short one and for the dense one.

    Args:
        path: a folder of JSON files of any depth, each ``{"sa_1.jpg": {...}}`` or the inner object
            alone; or JSONL of such objects.
        options: its ``images`` give sizes where no mask does.
        ledger: counts phrases that are left out.

    Raises:
        DataError: there is no file, or one is broken.
    """
    return Source(_samples(path, options, ledger, _captions), None)


def read_grand_objects(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open objects; a sample's caption is what they are called, a sentence for each text."""
    return Source(_samples(path, options, ledger, _described), None)


def _samples(path: Path, options: ReadOptions, ledger: Ledger, read: Any) -> Iterator[Sample]:
    for where, name, values in _pictures(path, ledger):
        try:
            picture = _GrandPicture(Fields(values, where), name, options)
            yield from read(picture, ledger)
        except DataError as error:
            ledger.reject(error)


def _pictures(path: Path, ledger: Ledger) -> Iterator[tuple[str, str | None, Any]]:
    """Where each picture's annotations are, its name, and what they are."""
    found = False
    for where, default, values in _documents(path, ledger):
        found = True
        inner = list(values.values()) if isinstance(values, dict) else []
        if len(inner) == 1 and isinstance(inner[0], dict) and "caption" not in inner[0]:
            yield where, next(iter(values)), inner[0]
        else:
            yield where, default, values
    if not found:
        raise DataError(f"{path}: there is no JSON file of a picture in it")


def _documents(path: Path, ledger: Ledger) -> Iterator[tuple[str, str | None, Any]]:
    if path.is_file():
        rows = IndexedJsonl(path, max_bad_rows=ledger.max_bad_rows)
        for line in rows.bad_lines:
            ledger.reject(DataError(f"{path}:{line}: not a JSON object"))
        yield from ((rows.location(index), None, rows[index]) for index in range(len(rows)))
        return
    for folder, folders, files in os.walk(path):
        folders.sort()
        for file in sorted(name for name in files if name.endswith(".json")):
            place = Path(folder, file)
            try:
                yield str(place), f"{place.stem}.jpg", read_json(place)
            except DataError as error:
                ledger.reject(error)


class _GrandPicture:
    """A picture's annotations with its objects by id.

    Raises:
        DataError: a mask or a box is malformed, or the picture has no name.
    """

    def __init__(self, entry: Fields, name: str | None, options: ReadOptions) -> None:
        self.entry = entry
        self.filename = next((entry.text(key) for key in _NAMES if key in entry), name)
        if self.filename is None:
            raise entry.fault("file_name", "is missing")
        kinds = [kind for kind in ("objects", "floating_objects") if kind in entry]
        self.objects = [item for kind in kinds for item in entry.objects(kind)]
        self.height, self.width = self._size(options)
        self.by_id = {item.get("id"): item for item in self.objects if "id" in item}

    def _size(self, options: ReadOptions) -> tuple[int | None, int | None]:
        if "height" in self.entry and "width" in self.entry:
            return self.entry.size("height"), self.entry.size("width")
        for item in self.objects:
            mask = item.get("segmentation") if "segmentation" in item else None
            if isinstance(mask, dict) and mask_problem(mask, (None, None)) is None:
                return mask["size"][0], mask["size"][1]
        if options.images is None or self.filename is None:
            return None, None
        width, height = image_size(options.images / self.filename, self.entry.where)
        return height, width

    def sample(self, caption: str) -> Sample:
        """A sample of the picture without instances."""
        assert self.filename is not None
        where = self.entry.where
        return Sample(self.filename, self.width, self.height, [], where, caption)

    def mask(self, item: Fields) -> Mask | None:
        """The mask of an object."""
        if "segmentation" not in item or self.height is None or self.width is None:
            return None
        return join_masks(
            [item.mask("segmentation", (self.height, self.width))], (self.height, self.width)
        )

    def instance(self, item: Fields, words: str, span: list[int]) -> Instance:
        """An object that a span of the caption names."""
        mask = self.mask(item)
        box = item.box("bbox") if "bbox" in item else None if mask is None else mask_box(mask)
        if box is None:
            raise item.fault("bbox", "is missing, and there is no mask")
        return Instance(box, words, None, [span], mask=mask)


def _captions(picture: _GrandPicture, ledger: Ledger) -> Iterator[Sample]:
    entry = picture.entry
    if "short_captions" not in entry and "dense_caption" not in entry:
        ledger.note(NO_CAPTION, entry.where)
    captions = entry.objects("short_captions") if "short_captions" in entry else []
    if "dense_caption" in entry:
        captions.append(entry.object("dense_caption"))
    for item in captions:
        sample = picture.sample(item.text("caption"))
        for detail in item.objects("details") if "details" in item else ():
            sample.instances += _named(picture, detail, sample.caption or "", ledger)
        yield sample


def _named(
    picture: _GrandPicture, detail: Fields, caption: str, ledger: Ledger
) -> Iterator[Instance]:
    """What a phrase of a caption names."""
    span = detail.get("tokens_positive") if "tokens_positive" in detail else None
    if isinstance(span, list) and span and isinstance(span[0], list):
        span = span[0]
    if span_problem([span], caption) is not None or span is None:
        ledger.note(NO_PLACE, detail.where)
        return
    ids = detail.array("ids") if "ids" in detail else [detail.get("id")] if "id" in detail else []
    objects = [picture.by_id[each] for each in ids if each in picture.by_id]
    if not objects and _is_box(detail):
        objects = [detail]
    if not objects:
        ledger.note(NO_OBJECT, detail.where)
    for item in objects:
        yield picture.instance(item, caption[slice(*span)], span)


def _is_box(item: Fields) -> bool:
    box = item.get("bbox") if "bbox" in item else None
    return isinstance(box, list) and len(box) == 4 and all(map(is_number, box))


def _described(picture: _GrandPicture, ledger: Ledger) -> Iterator[Sample]:
    if not picture.objects:
        ledger.note(NO_OBJECTS, picture.entry.where)
    sample = picture.sample("")
    caption = ""
    for item in picture.objects:
        texts = [
            " ".join(text.split())
            for key in ("attributes", "labels")
            if key in item
            for text in item.array(key)
            if isinstance(text, str) and text.strip()
        ]
        texts = list(dict.fromkeys(texts))
        if not texts:
            ledger.note(NO_WORDS, item.where)
        for text in texts:
            caption += _SENTENCE_END if caption else ""
            start = len(caption)
            caption += text
            sample.instances.append(picture.instance(item, text, [start, len(caption)]))
    sample.caption = caption
    yield sample
