"""Expressions about pictures in TSV files: Rexverse-2M (ChatRex) and HumanRef-CoT (Rex-Thinker).

A line of the annotations is the byte at which the picture's line begins in the file of pictures,
a tab, and JSON: ``gt_boxes`` (x, y, width, height), and ``region_map``, of each text the boxes that
it means. A text without boxes means nothing in the picture. Pictures stay where they are: rows name
them as ``NAME.images.tsv/BYTE``, see :mod:`llmdet.datasets.storage.tsv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from llmdet.datasets.coco_file import is_box, not_a_box
from llmdet.datasets.fields import Fields, is_index
from llmdet.datasets.formats.samples import Instance, ReadOptions, Sample, Source, image_size
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.storage.tsv import TsvFile, parts_of
from llmdet.errors import DataError

#: Of a sample: nothing in its picture is what its sentence says.
ABSENT = "absent"
_ANNOTATIONS = re.compile(r"\.annotations?\.tsv$")


def read_tsv(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open annotations: one sample for each text, in whose ``proposals`` the other boxes are.

    ``options.images`` may name the file of pictures, or its folder, where it is not beside the
    annotations under the name that the publishers give it.

    Raises:
        DataError: a file is missing, or a line is broken; names it.
    """
    try:
        annotations = TsvFile(path)
    except FileNotFoundError as error:
        raise DataError(str(error)) from None
    return Source(_samples(annotations, pictures_of(path, options.images), ledger), None)


def pictures_of(path: Path, given: Path | None = None) -> Path:
    """The file of pictures that annotations are about, which may lie in parts.

    ``humanref_cot.annotations.tsv`` is about ``humanref_cot.images.tsv``, and
    ``0_500000_referring.annotations.tsv`` about ``0_500000_image.tsv``.

    Raises:
        DataError: there is none.
    """
    base = _ANNOTATIONS.sub("", path.name)
    words = base.split("_")
    starts = ["_".join(words[:number]) for number in range(len(words), 0, -1)]
    beside = [f"{base}.images.tsv", *(f"{start}_image.tsv" for start in starts)]
    folders = [path.parent] if given is None else [given, path.parent]
    wanted = [folder / name for folder in folders for name in beside]
    if given is not None and given.suffix == ".tsv":
        wanted = [given]
    for file in wanted:
        if parts_of(file):
            return file
    tried = ", ".join(str(file) for file in wanted[:2])
    raise DataError(f"{path}: its pictures are not there ({tried}); name their .tsv with --images")


def _samples(annotations: TsvFile, pictures: Path, ledger: Ledger) -> Iterator[Sample]:
    number = 0
    for line in range(len(annotations)):
        where = f"{annotations.path}:{line + 1}"
        try:
            made = list(_of_line(annotations[line], pictures, where))
        except DataError as error:
            ledger.reject(error if where in str(error) else DataError(f"{where}: {error}"), where)
            continue
        for sample in made:
            number += 1
            sample.extra["id"] = number
            yield sample


def _of_line(columns: list[bytes], pictures: Path, where: str) -> Iterator[Sample]:
    if len(columns) != 2 or not columns[0].strip().isdigit():
        raise DataError(f"{where} is no annotation: a byte of the pictures, a tab and JSON")
    start = int(columns[0])
    try:
        values = orjson.loads(columns[1])
    except orjson.JSONDecodeError as error:
        raise DataError(f"{where}: the second column is no JSON ({error})") from None
    fields = Fields(values, where)
    boxes = _boxes(fields)
    width, height = image_size(pictures / str(start), where)
    others = {key: value for key, value in values.items() if key not in ("gt_boxes", "region_map")}
    for text, places in _texts(fields, len(boxes)).items():
        yield expression_sample(
            f"{pictures.name}/{start}",
            (width, height),
            text,
            [boxes[place] for place in places],
            [box for place, box in enumerate(boxes) if place not in places],
            where,
            {"original_id": start, **others},
        )


def expression_sample(
    filename: str,
    size: tuple[int | None, int | None],
    text: str,
    boxes: list[list[float]],
    others: list[list[float]],
    where: str,
    extra: dict[str, Any],
) -> Sample:
    """The sample of a text and the boxes that it means.

    Args:
        filename: of the picture.
        size: its width and height.
        text: what is said.
        boxes: xyxy of what it means; none where nothing is meant.
        others: xyxy of other objects, which become proposals.
        where: place in the annotations.
        extra: other fields.
    """
    text = text.strip()
    instances = [Instance(box, text, None, [[0, len(text)]]) for box in boxes]
    extra = extra if boxes else {**extra, ABSENT: True}
    fields = {"proposals": others} if others else {}
    return Sample(filename, *size, instances, where, text, fields, extra)


def _boxes(fields: Fields) -> list[list[float]]:
    corners = []
    for number, box in enumerate(fields.array("gt_boxes")):
        if not is_box(box):
            raise fields.fault(f"gt_boxes[{number}]", f"is wrong: {not_a_box(box)}")
        x, y, width, height = box
        corners.append([x, y, x + width, y + height])
    return corners


def _texts(fields: Fields, count: int) -> dict[str, list[int]]:
    region_map = fields.object("region_map")
    texts: dict[str, list[int]] = {}
    for text in region_map:
        places = region_map.array(text)
        if not all(is_index(place) and 0 <= place < count for place in places):
            raise region_map.fault(text, f"names boxes {places!r}, and there are {count}")
        if not text.strip():
            raise region_map.fault(text, "is a text without a word")
        texts[text] = list(dict.fromkeys(places))
    return texts
