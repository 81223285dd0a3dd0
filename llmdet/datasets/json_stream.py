"""JSON files of any size, read a part at a time; whatever is wrong with them names the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from llmdet.datasets.jsonl_index import open_checked
from llmdet.errors import DataError
from llmdet.prompts.parse import shorten

_UTF8_BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 20


def read_members(path: str, file: BinaryIO, lists: tuple[str, ...]) -> dict[str, Any]:
    """All members of a file's one object but those of the given names, which must be lists.

    Raises:
        DataError: it is no such file.
    """
    builder = ijson.ObjectBuilder()
    for prefix, event, value in _events(path, file, ijson.parse):
        member = prefix.partition(".")[0]
        if member not in lists:
            builder.event(event, value)
        elif prefix == member and event not in ("start_array", "end_array"):
            raise DataError(f"{path}: {member!r} is not a list")
    if not isinstance(getattr(builder, "value", None), dict):
        raise DataError(f"{path}: a COCO file is one JSON object")
    return builder.value


def read_items(path: str, file: BinaryIO, prefix: str) -> Iterator[Any]:
    """The values below a prefix as ijson writes it, such as ``images.item``, from the beginning.

    Raises:
        DataError: the file is no JSON.
    """
    return _events(path, file, ijson.items, prefix)


def read_list(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place (file and number, for messages) and entry of a file that is one list of objects.

    Raises:
        DataError: the file is missing, no JSON, no list, an empty one, or an entry is no object.
    """
    number = -1
    with open_checked(str(path)) as file:
        for number, item in enumerate(read_items(str(path), file, "item")):
            where = f"{path}: entry {number}"
            if not isinstance(item, dict):
                raise DataError(f"{where} is {shorten(repr(item))}, not an object")
            yield where, item
    if number < 0:
        raise DataError(f"{path}: the file is no list of objects, or an empty one")


def read_named(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place, name and entry of a file of named entries.

    It is one object of them, or a list of objects that hold one each.

    Raises:
        DataError: the file is missing, no JSON, or an entry is no object.
    """
    if not _is_object(path):
        for where, item in read_list(path):
            for name, entry in item.items():
                yield f"{where} ({name})", name, _object(entry, f"{where} ({name})")
        return
    with open_checked(str(path)) as file:
        for name, entry in _events(str(path), file, ijson.kvitems, ""):
            yield f"{path}: {name}", name, _object(entry, f"{path}: {name}")


def _is_object(path: Path) -> bool:
    with open_checked(str(path)) as file:
        file.seek(0)
        return file.read(64).removeprefix(_UTF8_BOM).lstrip().startswith(b"{")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where} is {shorten(repr(value))}, not an object")
    return value


def _events(path: str, file: BinaryIO, read: Callable[..., Any], *prefix: str) -> Iterator[Any]:
    file.seek(0)
    if file.read(len(_UTF8_BOM)) != _UTF8_BOM:
        file.seek(0)
    try:
        yield from read(file, *prefix, use_float=True, buf_size=_BLOCK_BYTES)
    except ijson.JSONError as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{path}: not valid JSON ({problem})") from None
