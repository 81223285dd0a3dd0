"""Captions whose phrases have masks: the forms of GranD-f's parts (GLaMM, arXiv 2311.03356).

``grandf`` is the form of its human part and of OpenPsgGCG, ``refcocog_gcg`` that of RefCOCOg's; its
part of Flickr30k is in MDETR's form (``flickr30k``) with a field ``sam_mask``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmdet.datasets.fields import Fields
from llmdet.datasets.formats.mdetr import span_problem
from llmdet.datasets.formats.samples import Instance, ReadOptions, Sample, Source, image_size
from llmdet.datasets.json_stream import read_list, read_named
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.masks import join_masks, mask_box, mask_problem
from llmdet.datasets.sample import Mask
from llmdet.errors import DataError
from llmdet.prompts.masks import find_phrases, without_quotes

NO_PLACE = "phrase whose place is not in the caption"
NOT_SAID = "phrase that the caption does not say"
EMPTY_MASK = "phrase whose mask has no pixel"

Size = tuple[int, int]  # height, width


def read_grandf(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open a list of ``{file_name, caption, groundings: {name: {token_positives, rle_masks}}}``.

    Masks of a phrase are joined. Quotation marks around a caption are taken away, and the places of
    its phrases moved.

    Raises:
        DataError: the file or an entry is broken.
    """

    def samples() -> Iterator[Sample]:
        for where, values in read_list(path):
            try:
                yield _grandf_sample(Fields(values, where), options, ledger)
            except DataError as error:
                ledger.reject(error)

    return Source(samples(), None)


def read_refcocog_gcg(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open ``{name: {img_file_name, caption, refs: [{sentence, segmentation}]}}``.

    It may be a list of such objects with one entry each, as published.
    Sentences are looked up in the caption, in any case. Pictures have no sizes there: polygons can
    only be used as masks with ``options.images``.

    Raises:
        DataError: the file or an entry is broken.
    """

    def samples() -> Iterator[Sample]:
        for where, _, values in read_named(path):
            try:
                yield _refcocog_sample(Fields(values, where), options, ledger)
            except DataError as error:
                ledger.reject(error)

    return Source(samples(), None)


def _grandf_sample(entry: Fields, options: ReadOptions, ledger: Ledger) -> Sample:
    caption, shift = without_quotes(entry.text("caption"))
    groundings = entry.object("groundings")
    items = [groundings.object(name) for name in groundings]
    masks = [item.array("rle_masks") for item in items]
    size = _size_of([mask for each in masks for mask in each])
    sample = _sample(entry, "file_name", caption, size, options)
    for item, of_phrase in zip(items, masks, strict=True):
        place = item.array("token_positives")
        place = place[0] if place and isinstance(place[0], list) else place
        is_span = len(place) == 2 and all(type(edge) is int for edge in place)
        span = [edge - shift for edge in place] if is_span else place
        if span_problem([span], caption):
            ledger.note(NO_PLACE, entry.where)
            continue
        _add(sample, span, of_phrase, item, ledger)
    return sample


def _refcocog_sample(entry: Fields, options: ReadOptions, ledger: Ledger) -> Sample:
    caption, _ = without_quotes(entry.text("caption"))
    sample = _sample(entry, "img_file_name", caption, None, options)
    references = entry.objects("refs")
    places = find_phrases(caption, [reference.text("sentence") for reference in references])
    for reference, place in zip(references, places, strict=True):
        if place is None:
            ledger.note(NOT_SAID, entry.where)
            continue
        _add(sample, list(place), [reference.get("segmentation")], reference, ledger)
    return sample


def _sample(
    entry: Fields, name: str, caption: str, size: Size | None, options: ReadOptions
) -> Sample:
    filename = entry.text(name)
    if size is None and options.images is not None:
        size = image_size(options.images / filename, entry.where)[::-1]
    height, width = (None, None) if size is None else size
    return Sample(filename, width, height, [], entry.where, caption)


def _add(
    sample: Sample, span: list[int], masks: Sequence[Any], item: Fields, ledger: Ledger
) -> None:
    """Enter a phrase of the caption with one mask of all its parts."""
    for mask in masks:
        if problem := mask_problem(mask, (sample.height, sample.width)):
            raise item.fault("mask", problem)
    mask = _joined(masks, sample)
    if mask is None:
        ledger.note(EMPTY_MASK, sample.where)
        return
    words = (sample.caption or "")[slice(*span)]
    sample.instances.append(Instance(mask_box(mask), words, None, [span], mask=mask))


def _joined(masks: Sequence[Mask], sample: Sample) -> Mask | None:
    if sample.height is None or sample.width is None:  # polygons, which need no size to be kept
        plain = [mask for mask in masks if not isinstance(mask, Mapping)]
        return [polygon for mask in plain for polygon in mask] or None
    return join_masks(masks, (sample.height, sample.width))


def _size_of(masks: Sequence[Any]) -> Size | None:
    """The size that encoded masks say."""
    for mask in masks:
        if isinstance(mask, dict) and mask_problem(mask, (None, None)) is None:
            height, width = mask["size"]
            return height, width
    return None
