"""COCO instance annotations and their relatives: LVIS, V3Det, Objects365.

Images and annotations are found in the document once; afterwards only their places in the file are
kept (a few dozen bytes each) and each image is read again together with its annotations.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import orjson

from llmdet.datasets.formats.json_stream import visit_document
from llmdet.datasets.formats.samples import (
    Instance,
    ReadOptions,
    Sample,
    Source,
    image_size,
)
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError

# Fields of an image that a JSONL row carries under the same name.
ROW_FIELDS = ("conversations", "tags")


@dataclass(slots=True)
class CocoIndex:
    """Where the images and annotations of a COCO document are."""

    path: str
    header: dict[str, Any] = field(default_factory=dict)  # all but images and annotations
    image_places: array[int] = field(default_factory=lambda: array("q"))  # start, length, ...
    image_ids: dict[Any, int] = field(default_factory=dict)  # id -> position among images
    owners: array[int] = field(default_factory=lambda: array("q"))  # position among seen ids
    annotation_places: array[int] = field(default_factory=lambda: array("q"))
    seen_ids: dict[Any, int] = field(default_factory=dict)  # image_id of annotations -> position

    @classmethod
    def build(cls, path: Path) -> CocoIndex:
        index = cls(os.fspath(path))
        index.header = visit_document(path, ("images", "annotations"), index._visit)
        for member in ("images", "annotations"):
            if member in index.header:
                raise DataError(f"{path}: {member!r} is not a list")
        if not index.image_places:
            raise DataError(f"{path}: there are no images; is this a COCO annotation file?")
        return index

    def _visit(self, key: str, element: Any, start: int, length: int) -> None:
        if not isinstance(element, dict):
            raise DataError(f"{self.path}: an element of {key!r} at byte {start} is no object")
        if key == "images":
            self._add_image(element, start, length)
            return
        if "image_id" not in element:
            raise DataError(f"{self.path}: the annotation at byte {start} has no image_id")
        image_id = element["image_id"]
        self.owners.append(self.seen_ids.setdefault(image_id, len(self.seen_ids)))
        self.annotation_places.extend((start, length))

    def _add_image(self, image: dict[str, Any], start: int, length: int) -> None:
        if "id" not in image:
            raise DataError(f"{self.path}: the image at byte {start} has no id")
        if image["id"] in self.image_ids:
            raise DataError(f"{self.path}: the image id {image['id']!r} appears twice")
        self.image_ids[image["id"]] = len(self.image_ids)
        self.image_places.extend((start, length))

    def grouped_annotations(self) -> tuple[np.ndarray, np.ndarray]:
        """Places of all annotations in the order of their images.

        Returns:
            Places [A, 2] int64 (start, length) and bounds [images + 1] int64: the annotations of
            image i are ``places[bounds[i] : bounds[i + 1]]``.
        """
        position = np.array([self.image_ids.get(key, -1) for key in self.seen_ids], np.int64)
        owners: np.ndarray = position[np.array(self.owners, np.int64)]
        places: np.ndarray = np.array(self.annotation_places, np.int64).reshape(-1, 2)
        places = places[np.argsort(owners, kind="stable")]
        bounds = np.searchsorted(np.sort(owners), np.arange(len(self.image_ids) + 1))
        return places, bounds

    def orphans(self) -> list[Any]:
        """Image ids that annotations name and no image has."""
        return [image_id for image_id in self.seen_ids if image_id not in self.image_ids]


def read_coco(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open a COCO instance file; class names come from the file, in its order.

    LVIS and V3Det files are such files too. Where an image has no ``file_name``, as in LVIS, the
    tail of its ``coco_url`` names it: ``train2017/000000391895.jpg``.

    Raises:
        DataError: On broken JSON, on a missing field or an unknown category, with its place.
    """
    index = CocoIndex.build(path)
    categories = _checked_categories(index)
    for image_id in index.orphans():
        ledger.reject(
            DataError(f"{path}: annotations name the image id {image_id!r}, which is none")
        )
    samples = _samples(index, categories, options, ledger)
    header = {key: value for key, value in index.header.items() if key != "categories"}
    return Source(samples, len(index.image_ids), categories, header)


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


def _checked_categories(index: CocoIndex) -> list[dict[str, Any]]:
    categories = index.header.get("categories")
    if not isinstance(categories, list) or not categories:
        raise DataError(f"{index.path}: the file has no categories")
    seen = set()
    for category in categories:
        named = isinstance(category, dict) and str(category.get("name", "")).strip()
        if not named or "id" not in category:
            raise DataError(f"{index.path}: a category lacks its id or name: {category!r}")
        if category["id"] in seen:
            raise DataError(f"{index.path}: the category id {category['id']!r} appears twice")
        seen.add(category["id"])
    return categories


def _samples(
    index: CocoIndex, categories: list[dict[str, Any]], options: ReadOptions, ledger: Ledger
) -> Iterator[Sample]:
    labels = {category["id"]: label for label, category in enumerate(categories)}
    names = [str(category["name"]) for category in categories]

    def convert(image: dict[str, Any], annotations: list[dict[str, Any]]) -> Sample:
        sample = image_sample(image, index.path, options)
        for annotation in annotations:
            sample.instances.append(_instance(annotation, labels, names, index.path))
        return sample

    return each_image(index, convert, ledger)


def each_image(
    index: CocoIndex,
    convert: Callable[[dict[str, Any], list[dict[str, Any]]], Sample],
    ledger: Ledger,
) -> Iterator[Sample]:
    """``convert(image, its annotations)`` for every image, in the order of the file."""
    places, bounds = index.grouped_annotations()
    images = np.frombuffer(index.image_places, np.int64).reshape(-1, 2)
    with open(index.path, "rb") as file:
        fd = file.fileno()
        for position, (start, length) in enumerate(images.tolist()):
            mine = places[bounds[position] : bounds[position + 1]].tolist()
            try:
                image = _read(index.path, fd, start, length)
                annotations = [_read(index.path, fd, *place) for place in mine]
                sample = convert(image, annotations)
            except DataError as error:
                ledger.reject(error, f"{index.path}: image {position}")
                continue
            yield sample


def _read(path: str, fd: int, start: int, length: int) -> dict[str, Any]:
    try:
        return orjson.loads(os.pread(fd, length, start))
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON at byte {start} ({error.msg})") from None


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
    annotation: dict[str, Any], labels: dict[Any, int], names: list[str], path: str
) -> Instance:
    where = f"{path}: annotation id {annotation.get('id')!r}"
    label = labels.get(annotation.get("category_id"))
    if label is None:
        raise DataError(
            f"{where}: category_id {annotation.get('category_id')!r} is not among the categories"
        )
    bbox, extra = split_box(annotation, where)
    del extra["image_id"], extra["category_id"]
    ignored = bool(annotation.get("iscrowd", 0))
    return Instance(bbox, names[label], label, ignored=ignored, extra=extra)


def split_box(annotation: dict[str, Any], where: str) -> tuple[list[float], dict[str, Any]]:
    """The box as x1, y1, x2, y2 and the other fields.

    The original ``bbox`` stays among the fields where rounding keeps it from being restored.
    """
    bbox = annotation.get("bbox")
    if not is_box(bbox):
        raise DataError(f"{where}: bbox {bbox!r} is not four numbers [x, y, width, height]")
    x, y, width, height = bbox
    corners = [x, y, x + width, y + height]
    extra = dict(annotation)
    if xywh(corners) == bbox:
        del extra["bbox"]
    return corners, extra


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Whether a value is a list of four finite numbers."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
        and all(abs(v) < float("inf") for v in value)
    )


def xywh(corners: list[float]) -> list[float]:
    """x1, y1, x2, y2 as x, y, width, height."""
    x1, y1, x2, y2 = corners
    return [x1, y1, x2 - x1, y2 - y1]
