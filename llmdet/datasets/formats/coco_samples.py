"""COCO instance annotations and their relatives as samples: LVIS, V3Det, Objects365."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from llmdet.datasets.coco_file import CocoStream, check_annotation, check_ids, is_box, not_a_box
from llmdet.datasets.formats.samples import (
    Instance,
    ReadOptions,
    Sample,
    Source,
    image_size,
)
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError

Made = TypeVar("Made")

# Fields of an image that a JSONL row carries under the same name.
ROW_FIELDS = ("conversations", "tags")


def read_coco(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open a COCO instance file; class names come from the file, in its order.

    LVIS and V3Det files are such files too. Where an image has no ``file_name``, as in LVIS, the
    tail of its ``coco_url`` names it: ``train2017/000000391895.jpg``.

    Raises:
        DataError: On broken JSON, on a missing field or an unknown category, with its place.
    """
    stream = open_stream(path, ledger)
    categories = _checked_categories(stream)
    samples = _samples(stream, categories, options, ledger)
    header = {key: value for key, value in stream.header.items() if key != "categories"}
    return Source(samples, len(stream), categories, header)


def open_stream(path: Path, ledger: Ledger) -> CocoStream:
    """The images of a file; annotations of images that it lacks are broken records."""
    stream = CocoStream(path)
    for image_id in stream.orphans:
        ledger.reject(
            DataError(f"{path}: annotations name the image id {image_id!r}, which is none")
        )
    return stream


def read_objects365(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open an Objects365 file: COCO, with ``images/v1/patch8/x.jpg`` shortened to ``patch8/x.jpg``.

    The short form is the layout of the extracted archives.
    """
    source = read_coco(path, options, ledger)
    source.samples = _shortened(source.samples)
    return source


def _shortened(samples: Iterator[Sample]) -> Iterator[Sample]:
    for sample in samples:
        match = re.fullmatch(r"images/v\d+/(patch\d+/[^/]+)", sample.filename)
        if match:
            sample.extra["file_name"] = sample.filename
            sample.filename = match[1]
        yield sample


def _checked_categories(stream: CocoStream) -> list[dict[str, Any]]:
    categories = stream.header.get("categories")
    if not isinstance(categories, list) or not categories:
        raise DataError(f"{stream.path}: the file has no categories")
    for category in categories:
        if not isinstance(category, dict) or not str(category.get("name", "")).strip():
            raise DataError(f"{stream.path}: a category lacks its name: {category!r}")
    check_ids(categories, "category", stream.path)
    return categories


def _samples(
    stream: CocoStream, categories: list[dict[str, Any]], options: ReadOptions, ledger: Ledger
) -> Iterator[Sample]:
    labels = {category["id"]: label for label, category in enumerate(categories)}
    names = [str(category["name"]) for category in categories]

    def convert(image: dict[str, Any], annotations: list[dict[str, Any]]) -> Sample:
        sample = image_sample(image, stream.path, options)
        for annotation in annotations:
            sample.instances.append(_instance(annotation, image["id"], labels, names, stream.path))
        return sample

    return each_image(stream, convert, ledger)


def each_image(
    stream: CocoStream,
    convert: Callable[[dict[str, Any], list[dict[str, Any]]], Made],
    ledger: Ledger,
) -> Iterator[Made]:
    """``convert(image, its annotations)`` for every image, in the order of the file."""
    for position, image, owned in stream:
        try:
            made = convert(image, owned)
        except DataError as error:
            ledger.reject(error, f"{stream.path}: image {position}")
        else:
            yield made


def image_sample(image: dict[str, Any], path: str, options: ReadOptions) -> Sample:
    """The sample of a COCO image, still without boxes."""
    where = f"{path}: image id {image['id']!r}"
    extra = dict(image)
    filename = extra.pop("file_name", None)
    if filename is None:
        filename = "/".join(str(image.get("coco_url", "")).split("/")[-2:])
        extra["file_name"] = None  # tells the writer that the source had none
    if not filename:
        raise DataError(f"{where} has neither file_name nor coco_url")
    width, height = extra.pop("width", None), extra.pop("height", None)
    if (width is None or height is None) and options.images is not None:
        width, height = image_size(options.images / filename, where)
    fields = {key: extra.pop(key) for key in ROW_FIELDS if key in extra}
    return Sample(filename, width, height, [], where, fields=fields, extra=extra)


def _instance(
    annotation: dict[str, Any],
    image_id: Any,
    labels: dict[Any, int],
    names: list[str],
    path: str,
) -> Instance:
    check_annotation(annotation, (image_id,), labels, path)
    bbox, extra = split_box(annotation, f"{path}: annotation id {annotation.get('id')!r}")
    del extra["image_id"], extra["category_id"]
    label = labels[annotation["category_id"]]
    ignored = bool(annotation.get("iscrowd", 0))
    return Instance(bbox, names[label], label, ignored=ignored, extra=extra)


def split_box(annotation: dict[str, Any], where: str) -> tuple[list[float], dict[str, Any]]:
    """The box as x1, y1, x2, y2 and the other fields.

    The original ``bbox`` stays among the fields where rounding keeps it from being restored.
    """
    bbox = annotation.get("bbox")
    if not is_box(bbox):
        raise DataError(f"{where}: {not_a_box(bbox)}")
    x, y, width, height = bbox
    corners = [x, y, x + width, y + height]
    extra = dict(annotation)
    if xywh(corners) == bbox:
        del extra["bbox"]
    return corners, extra


def xywh(corners: list[float]) -> list[float]:
    """x1, y1, x2, y2 as x, y, width, height."""
    x1, y1, x2, y2 = corners
    return [x1, y1, x2 - x1, y2 - y1]
