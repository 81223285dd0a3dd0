"""COCO annotation files, read for training, metrics and converters alike.

:class:`CocoFile` holds a whole file, checked, for what needs all of it in memory anyway.
:class:`CocoStream` visits the images of a file of any size, each with its annotations.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
import orjson

from llmdet.datasets.json_stream import read_items, read_members
from llmdet.datasets.jsonl_index import open_checked
from llmdet.datasets.numbers import is_number
from llmdet.errors import DataError
from llmdet.utils.files import read_json

Json = dict[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """A COCO file: ids are unique, annotations name an image and a category and have a box."""

    where: str  # the file, for messages
    images: list[Json]
    annotations: list[Json]
    categories: list[Json]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CocoFile:
        """A ``.json`` or ``.json.gz`` file.

        Raises:
            DataError: it is missing, is no JSON, or as :meth:`parse`.
        """
        return cls.parse(read_json(Path(path)), os.fspath(path))

    @classmethod
    def parse(cls, content: Any, where: str = "annotations") -> CocoFile:
        """The document of a file.

        Raises:
            DataError: a list or a field is missing, an id occurs twice, a box is none, or an
                annotation names an image or a category that the file does not have.
        """
        lists = {}
        for member in ("images", "annotations", "categories"):
            value = content.get(member) if isinstance(content, Mapping) else None
            if not isinstance(value, list):
                raise DataError(
                    f"{where}: field {member!r} is missing; a COCO json holds a list there."
                )
            for number, item in enumerate(value):
                if not isinstance(item, dict):
                    raise DataError(f"{where}: {member}[{number}] is {item!r}, not an object.")
            lists[member] = value
        file = cls(where, **lists)
        images = check_ids(file.images, "image", where)
        categories = check_ids(file.categories, "category", where)
        for annotation in file.annotations:
            check_annotation(annotation, images, categories, where)
        return file

    @property
    def boxes(self) -> np.ndarray:
        """[A, 4] float64 x, y, width, height of the annotations."""
        boxes = [annotation["bbox"] for annotation in self.annotations]
        return np.asarray(boxes, np.float64).reshape(-1, 4)

    def numbers(self, member: str, field: str) -> np.ndarray:
        """A field of every object of a list, as int64.

        Raises:
            DataError: one lacks it, or it is no whole number.
        """
        values = [item.get(field) for item in getattr(self, member)]
        array = np.asarray(values)
        if array.dtype.kind in "iuf" and np.all(array == (whole := array.astype(np.int64))):
            return whole
        number, value = next(
            (i, v) for i, v in enumerate(values) if type(v) not in (int, float) or v != int(v)
        )
        raise DataError(
            f"{self.where}: {member}[{number}]: field {field!r} must be a whole number, not "
            f"{value!r}."
        )


def check_ids(items: list[Json], kind: str, where: str) -> set[Any]:
    """The ids of images or categories.

    Raises:
        DataError: one has none, or two have the same.
    """
    ids: set[Any] = set()
    for number, item in enumerate(items):
        identity = item.get("id")
        if identity is None:
            raise DataError(f"{where}: {kind} {number}: field 'id' is missing.")
        if not is_id(identity):
            raise DataError(
                f"{where}: {kind} {number}: field 'id' must be a number or a string, not "
                f"{identity!r}."
            )
        if identity in ids:
            raise DataError(f"{where}: the {kind} id {identity!r} appears twice.")
        ids.add(identity)
    return ids


def check_annotation(
    annotation: Json, images: Collection[Any], categories: Collection[Any], where: str
) -> None:
    """Whether an annotation has a box, an image and a category.

    Raises:
        DataError: it has not; the sentence names its id.
    """
    box = annotation.get("bbox")
    if not is_box(box):
        problem = not_a_box(box)
    elif not _is_among(annotation.get("image_id"), images):
        problem = f"no image has the id {annotation.get('image_id')!r}"
    elif not _is_among(annotation.get("category_id"), categories):
        problem = f"no category has the id {annotation.get('category_id')!r}"
    else:
        return
    raise DataError(f"{where}: annotation id {annotation.get('id')!r}: {problem}.")


def is_id(value: Any) -> TypeGuard[int | float | str]:
    """Whether a value can be an id: lists and objects cannot."""
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _is_among(identity: Any, ids: Collection[Any]) -> bool:
    return is_id(identity) and identity in ids


def not_a_box(value: Any) -> str:
    """What is wrong with a value that :func:`is_box` does not take."""
    return f"bbox {value!r} is not four numbers [x, y, width, height]"


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Whether a value is a list of four finite numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


class CocoStream:
    """The images of a COCO file in its order, each with its annotations, whatever its size.

    Both lists are copied once to a temporary file, of which a few dozen bytes of places an object
    are held in memory (``TMPDIR`` says where it is).

    Args:
        path: an uncompressed file.

    Raises:
        DataError: it is missing, broken, or has no images.
    """

    def __init__(self, path: Path) -> None:
        self.path = os.fspath(path)
        self.orphans: set[Any] = set()  # image ids that annotations name and no image has
        self._positions: dict[Any, int] = {}  # image id -> position
        self._spill = tempfile.TemporaryFile()  # noqa: SIM115 closed with this object
        weakref.finalize(self, self._spill.close)
        self._end = 0
        with open_checked(self.path) as file:
            # All members but these two.
            self.header = read_members(self.path, file, ("images", "annotations"))
            self._images, _ = self._copy(file, "images", "id", self._new_image)
            places, owners = self._copy(file, "annotations", "image_id", self._owner)
        if not self._positions:
            raise DataError(f"{path}: there are no images; is this a COCO annotation file?")
        self._spill.flush()
        self._annotations = places[np.argsort(owners, kind="stable")]
        # Annotations of image i: bounds[i] .. bounds[i + 1]; those of no image are before all.
        self._bounds = np.searchsorted(np.sort(owners), np.arange(len(self) + 1))

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[tuple[int, Json, list[Json]]]:
        """Position, image and annotations of every image."""
        for position, place in enumerate(self._images.tolist()):
            start, end = self._bounds[position : position + 2]
            annotations = [self._read(*owned) for owned in self._annotations[start:end].tolist()]
            yield position, self._read(*place), annotations

    def _read(self, start: int, length: int) -> Json:
        return orjson.loads(os.pread(self._spill.fileno(), length, start))

    def _new_image(self, identity: Any) -> int:
        if identity in self._positions:
            raise DataError(f"{self.path}: the image id {identity!r} appears twice")
        self._positions[identity] = len(self._positions)
        return self._positions[identity]

    def _owner(self, identity: Any) -> int:
        position = self._positions.get(identity, -1)
        if position < 0:
            self.orphans.add(identity)
        return position

    def _copy(
        self, file: BinaryIO, member: str, key: str, owner: Callable[[Any], int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Copy a list; returns places [n, 2] int64 (start, length) and owners [n] int64."""
        places, owners = array("q"), array("q")
        for number, item in enumerate(read_items(self.path, file, f"{member}.item")):
            if not isinstance(item, dict) or item.get(key) is None:
                raise DataError(f"{self.path}: {member}[{number}] has no {key}")
            if not is_id(item[key]):
                raise DataError(f"{self.path}: {member}[{number}] has the {key} {item[key]!r}")
            text = orjson.dumps(item)
            self._spill.write(text)
            places.extend((self._end, len(text)))
            owners.append(owner(item[key]))
            self._end += len(text)
        return np.array(places, np.int64).reshape(-1, 2), np.array(owners, np.int64)
