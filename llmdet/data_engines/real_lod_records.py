"""The records that Real-LOD's agent reads: an expression, the object it is for, and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmdet.data_engines.real_lod_answers import plain_expression
from llmdet.datasets.jsonl import IndexedJsonl
from llmdet.datasets.numbers import is_number
from llmdet.errors import DataError
from llmdet.utils.files import read_json


@dataclass(frozen=True)
class Located:
    """An object of a record."""

    category: str
    box: tuple[float, float, float, float]  # xyxy in pixels of the picture


@dataclass(frozen=True)
class AgentSample:
    """What the agent works on.

    Attributes:
        record: the record as it was read, which nothing changes.
        where: its place, for messages.
        image_path: of the picture, in the folder of pictures.
        width: of the picture in pixels.
        height: of the picture in pixels.
        expression: the one to be checked, without the quotes around it.
        caption: a description of the object and the scene; may be empty.
        chosen: what the expression is for, at least one object.
        others: further objects of the picture.
    """

    record: Mapping[str, Any]
    where: str
    image_path: str
    width: int
    height: int
    expression: str
    caption: str
    chosen: tuple[Located, ...]
    others: tuple[Located, ...] = ()

    @property
    def category(self) -> str:
        """The names of the chosen objects, each once."""
        return ", ".join(dict.fromkeys(located.category for located in self.chosen))


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and content of every record of a file.

    Args:
        path: JSON Lines, read row by row, or one JSON array, read whole.

    Raises:
        DataError: the file is missing, or is neither.
    """
    if not _is_array(path):
        rows = IndexedJsonl(path)
        yield from ((f"{path}:{rows.line_number(i)}", row) for i, row in enumerate(rows))
        return
    records = read_json(path)
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(f"{path}: record {number} is {record!r}, not an object")
        yield f"{path}: record {number}", record


def count_records(path: Path) -> int | None:
    """The number of records, None where that is not known before they are read."""
    return None if _is_array(path) else len(IndexedJsonl(path))


def _is_array(path: Path) -> bool:
    """Whether the first character of a file opens an array."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def read_sample(record: Mapping[str, Any], where: str) -> AgentSample:
    """Check one record.

    Args:
        record: ``image_path``, ``height``, ``width``, ``raw_expression``, ``global_caption`` (may
            be missing) and ``object_locations`` with ``chosen_object`` (one, or a list of them) and
            ``other_objects``; each has a ``category`` and a ``bbox`` of x, y, width and height in
            pixels.
        where: its place, for messages.

    Raises:
        DataError: a field is missing or no such thing.
    """
    locations = record.get("object_locations")
    if not isinstance(locations, Mapping):
        raise DataError(f"{where}: 'object_locations' is {locations!r}, not an object")
    chosen = locations.get("chosen_object")
    entries = chosen if isinstance(chosen, list) else [chosen]
    others = locations.get("other_objects") or []
    if not entries or not isinstance(others, list):
        raise DataError(
            f"{where}: 'object_locations' needs a 'chosen_object' and a list of 'other_objects'"
        )
    expression = plain_expression(_text(record, "raw_expression", where))
    if not expression:
        raise DataError(f"{where}: 'raw_expression' is empty")
    caption = record.get("global_caption") or ""
    return AgentSample(
        record,
        where,
        _text(record, "image_path", where),
        _side(record, "width", where),
        _side(record, "height", where),
        expression,
        caption if isinstance(caption, str) else _text(record, "global_caption", where),
        tuple(_located(entry, "chosen_object", where) for entry in entries),
        tuple(_located(entry, "other_objects", where) for entry in others),
    )


def _text(record: Mapping[str, Any], field: str, where: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise DataError(f"{where}: '{field}' is {value!r}, not a text")
    return value


def _side(record: Mapping[str, Any], field: str, where: str) -> int:
    value = record.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f"{where}: '{field}' is {value!r}, not a number of pixels")
    return value


def _located(entry: Any, field: str, where: str) -> Located:
    category = entry.get("category") if isinstance(entry, Mapping) else None
    box = entry.get("bbox") if isinstance(entry, Mapping) else None
    if not isinstance(category, str) or not isinstance(box, list | tuple) or len(box) != 4:
        raise DataError(f"{where}: {field} {entry!r} needs a 'category' and a 'bbox' of 4 numbers")
    if not all(map(is_number, box)) or min(box[2:]) <= 0:
        raise DataError(f"{where}: {field} has the bbox {box!r}, not x, y, width, height")
    x, y, width, height = (float(value) for value in box)
    return Located(category, (x, y, x + width, y + height))
