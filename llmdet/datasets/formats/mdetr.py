"""Text-grounded annotations in MDETR's form: RefCOCO, RefCOCO+, RefCOCOg and Flickr30k Entities.

A COCO file whose images carry a ``caption`` (one image entry per sentence) and whose annotations
carry ``tokens_positive``, the character spans of the caption that name the box (Kamath et al.,
"MDETR", 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdet.datasets.coco_file import CocoStream
from llmdet.datasets.formats.coco_samples import (
    each_image,
    image_sample,
    open_stream,
    split_box,
)
from llmdet.datasets.formats.samples import Instance, ReadOptions, Sample, Source
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError


def read_refcoco(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open referring expressions: a box without spans is named by the whole expression."""
    return _read_mdetr(path, options, ledger, whole_caption=True)


def read_flickr30k(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open phrase grounding: every box must say which words of the caption name it."""
    return _read_mdetr(path, options, ledger, whole_caption=False)


def _read_mdetr(path: Path, options: ReadOptions, ledger: Ledger, *, whole_caption: bool) -> Source:
    stream = open_stream(path, ledger)
    samples = _samples(stream, options, ledger, whole_caption)
    return Source(samples, len(stream), None, stream.header)


def _samples(
    stream: CocoStream, options: ReadOptions, ledger: Ledger, whole_caption: bool
) -> Iterator[Sample]:
    def convert(image: dict[str, Any], annotations: list[dict[str, Any]]) -> Sample:
        sample = image_sample(image, stream.path, options)
        sample.caption = sample.extra.pop("caption", None)
        if not isinstance(sample.caption, str):
            raise DataError(f"{sample.where} has no caption")
        for annotation in annotations:
            where = f"{stream.path}: annotation id {annotation.get('id')!r}"
            sample.instances.append(_instance(annotation, sample.caption, where, whole_caption))
        return sample

    return each_image(stream, convert, ledger)


def _instance(
    annotation: dict[str, Any], caption: str, where: str, whole_caption: bool
) -> Instance:
    bbox, extra = split_box(annotation, where)
    del extra["image_id"]
    spans = extra.pop("tokens_positive", None)
    if not spans and whole_caption:
        spans = [[0, len(caption)]]
    checked = check_spans(spans, caption, where)
    ignored = bool(annotation.get("iscrowd") or annotation.get("ignore"))
    return Instance(bbox, phrase_of(caption, checked), None, checked, ignored, extra=extra)


def check_spans(spans: Any, caption: str, where: str) -> list[list[int]]:
    """The spans, if each is a non-empty range of characters inside the caption.

    Raises:
        DataError: They are missing, malformed, or point outside the caption.
    """
    problem = span_problem(spans, caption)
    if problem:
        raise DataError(f"{where}: tokens_positive {problem}")
    return spans


def span_problem(spans: Any, caption: str) -> str | None:
    """What is wrong with ``tokens_positive``, None if nothing is."""
    if not isinstance(spans, list) or not spans:
        return "is missing or empty"
    for span in spans:
        pair = isinstance(span, (list, tuple)) and len(span) == 2
        if not pair or not all(isinstance(edge, int) for edge in span):
            return f"holds {span!r}, which is not a [start, end) pair"
        if not 0 <= span[0] < span[1] <= len(caption):
            return (
                f"holds {list(span)}, which is no part of the caption's {len(caption)} characters"
            )
    return None


def phrase_of(caption: str, spans: list[list[int]]) -> str | list[str]:
    """The words that the spans point to: one string for one span, a list for several."""
    words = [caption[start:end] for start, end in spans]
    return words[0] if len(words) == 1 else words
