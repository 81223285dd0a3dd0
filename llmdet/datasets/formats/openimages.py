"""Open Images boxes: a CSV with one box a line, coordinates in fractions of the image."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from llmdet.datasets.formats.rows import numbered_categories
from llmdet.datasets.formats.samples import (
    Instance,
    ReadOptions,
    Sample,
    Source,
    image_size,
)
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError

CLASS_FILE = "class-descriptions-boxable.csv"
COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")

Row = tuple[int, dict[str, str]]  # line in the file, fields


def read_openimages(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open ``*-annotations-bbox.csv``, in which the boxes of an image follow each other.

    Class names come from ``options.classes``, else from ``class-descriptions-boxable.csv`` beside
    the file; sizes are read from ``options.images/<ImageID>.jpg``. Boxes around groups are not
    learnt.

    Raises:
        ConfigError: The folder of pictures is not given.
        DataError: A column is missing or a line is broken (file and line are named).
    """
    if options.images is None:
        raise ConfigError("Open Images boxes are fractions of the image: give --images FOLDER")
    class_file = options.classes or path.with_name(CLASS_FILE)
    codes = _class_codes(class_file)
    labels = {code: label for label, code in enumerate(codes)}
    names = list(codes.values())
    samples = _samples(path, labels, names, options.images, ledger)
    return Source(samples, None, numbered_categories(names))


def _class_codes(path: Path) -> dict[str, str]:
    """Code (``/m/01g317``) -> name, in the order of the file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise DataError(f"{path}: the class names cannot be read ({error.strerror})") from None
    if rows and rows[0][0] == "LabelName":
        rows = rows[1:]
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise DataError(f"{path}:{number}: a code and a name are expected, found {row}")
    return {row[0]: row[1] for row in rows}


def _rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise DataError(f"{path}:1: the column(s) {', '.join(missing)} are missing")
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _samples(
    path: Path, labels: dict[str, int], names: list[str], images: Path, ledger: Ledger
) -> Iterator[Sample]:
    seen: set[str] = set()
    for image_id, group in groupby(_rows(path), key=lambda item: item[1]["ImageID"]):
        rows = list(group)
        where = f"{path}:{rows[0][0]}"
        if image_id in seen:
            raise DataError(
                f"{where}: boxes of the image {image_id} appear in two places. Sort the file by "
                "ImageID."
            )
        seen.add(image_id)
        try:
            filename = f"{image_id}.jpg"
            width, height = image_size(images / filename, where)
            instances = [_instance(row, labels, names, (width, height), path) for row in rows]
        except DataError as error:
            ledger.reject(error)
            continue
        yield Sample(filename, width, height, instances, where)


def _instance(
    numbered: Row, labels: dict[str, int], names: list[str], size: tuple[int, int], path: Path
) -> Instance:
    line, row = numbered
    where = f"{path}:{line}"
    label = labels.get(row["LabelName"])
    if label is None:
        raise DataError(f"{where}: the class {row['LabelName']!r} has no name in the class file")
    width, height = size
    try:
        x1, x2 = float(row["XMin"]) * width, float(row["XMax"]) * width
        y1, y2 = float(row["YMin"]) * height, float(row["YMax"]) * height
    except (TypeError, ValueError):
        raise DataError(f"{where}: XMin, XMax, YMin, YMax are not four numbers") from None
    group = row.get("IsGroupOf") == "1"
    return Instance([x1, y1, x2, y2], names[label], label, ignored=group)
