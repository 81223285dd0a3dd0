"""What every annotation format is read into and written from: a stream of samples.

A reader yields one :class:`Sample` per image, a writer consumes them, and neither holds more than
one at a time. What a format says beyond boxes, names and text (ids, masks, licences ...) travels in
``extra``, so that a conversion and its inverse give back the same file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmdet.datasets.expressions import ExpressionPair
from llmdet.datasets.pictures import picture_size
from llmdet.datasets.sample import Mask
from llmdet.errors import DataError, naming
from llmdet.utils.files import read_text


@dataclass(slots=True)
class Instance:
    """One box and what it is called."""

    bbox: list[float]  # x1, y1, x2, y2 in pixels of the image
    phrase: str | list[str]  # class name, or the words of the text that name it
    label: int | None = None  # position in Source.categories; None for free text
    spans: list[list[int]] | None = None  # [start, end) characters of Sample.caption
    ignored: bool = False  # a crowd or a difficult object: not to be learnt
    mask: Mask | None = None  # of a row; other formats keep theirs in extra
    extra: dict[str, Any] = field(default_factory=dict)  # the source's other fields


@dataclass(slots=True)
class Sample:
    """One image, or one image with one of its sentences."""

    filename: str
    width: int | None
    height: int | None
    instances: list[Instance]
    where: str  # file and line or id, for messages
    caption: str | None = None  # the sentence that Instance.spans point into
    fields: dict[str, Any] = field(default_factory=dict)  # conversations, tags ...
    extra: dict[str, Any] = field(default_factory=dict)  # the source's other fields
    pairs: list[ExpressionPair] | None = None  # of expression form, which instances stand for too


@dataclass(slots=True)
class Source:
    """An opened annotation file or folder."""

    samples: Iterator[Sample]
    total: int | None  # number of samples where it is known beforehand
    categories: list[dict[str, Any]] | None = None  # at least {"name"}; None for free text
    header: dict[str, Any] = field(default_factory=dict)  # info, licences ...


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a reader may need to know beyond the path of the annotations."""

    images: Path | None = None  # folder of the pictures, for formats that lack their sizes
    classes: Path | None = None  # file with the class names
    names: tuple[str, ...] | None = None  # the class names of a JSONL file, where they are known
    split: str | None = None  # part of the data set, for formats that keep all in one folder


def image_size(
    path: str | Path, where: str, backend_args: Mapping[str, Any] | None = None
) -> tuple[int, int]:
    """Width and height of a picture that annotations name, after its EXIF rotation.

    Args:
        path: a file, a URL or a member of a tar shard.
        where: place in the annotations.
        backend_args: how URLs are read.

    Raises:
        DataError: The file is missing or is not a picture; names the place in the annotations.
    """
    with naming(where):
        return picture_size(path, backend_args)


def class_names(path: Path) -> list[str]:
    """Names of a text file with one class a line; blank lines at its end are not classes."""
    names = [line.strip() for line in read_text(path).splitlines()]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise DataError(f"{path}:{names.index('') + 1}: a class has no name")
    return names
