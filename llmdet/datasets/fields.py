"""Fields of a JSON object, checked when they are read: faults name file, line and field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmdet.datasets.masks import mask_problem
from llmdet.datasets.numbers import is_length, is_number
from llmdet.datasets.sample import Mask
from llmdet.errors import DataError


class Fields:
    """A JSON object whose fields are checked when they are read.

    Args:
        values: the parsed object.
        where: "file:line" of its row.
        path: name of the object inside the row, e.g. "grounding.regions[3]"; empty for the row.
    """

    def __init__(self, values: Any, where: str, path: str = "") -> None:
        self.where = where
        self.path = path
        if not isinstance(values, dict):
            raise self.fault("", f"must be an object, not {type(values).__name__}")
        self._values: Mapping[str, Any] = values

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        """The keys of values that are not null."""
        return (key for key in self._values if key in self)

    def fault(self, key: str, problem: str) -> DataError:
        """Make the error for a field."""
        name = ".".join(part for part in (self.path, key) if part)
        what = f"field {name!r}" if name else "it"
        return DataError(f"{self.where}: {what} {problem}.")

    def get(self, key: str) -> Any:
        """Any value that is there and not null."""
        if key not in self:
            raise self.fault(key, "is missing")
        return self._values[key]

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.fault(key, f"must be a string, not {type(value).__name__}")
        return value

    def size(self, key: str) -> int:
        """A positive whole number."""
        value = self.get(key)
        if not is_length(value):
            raise self.fault(key, f"must be a positive whole number of pixels, not {value!r}")
        return value

    def array(self, key: str) -> list[Any]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.fault(key, f"must be a list, not {type(value).__name__}")
        return value

    def is_array(self, key: str) -> bool:
        return isinstance(self.get(key), list)

    def object(self, key: str) -> Fields:
        return Fields(self.get(key), self.where, f"{self.path}.{key}" if self.path else key)

    def objects(self, key: str) -> list[Fields]:
        path = f"{self.path}.{key}" if self.path else key
        return [Fields(v, self.where, f"{path}[{i}]") for i, v in enumerate(self.array(key))]

    def box(self, key: str) -> list[float]:
        """Four finite numbers x1, y1, x2, y2."""
        return self._checked_box(key, self.get(key))

    def boxes(self, key: str) -> list[list[float]]:
        """One box or a list of boxes."""
        value = self.array(key)
        if value and isinstance(value[0], list):
            return [self._checked_box(f"{key}[{i}]", box) for i, box in enumerate(value)]
        return [self._checked_box(key, value)]

    def _checked_box(self, key: str, box: Any) -> list[float]:
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            raise self.fault(key, f"must be four numbers [x1, y1, x2, y2], not {box!r}")
        return box

    def spans(self, key: str) -> list[list[int]]:
        """A list of [start, end) character positions."""
        spans = self.array(key)
        for span in spans:
            if not isinstance(span, list) or len(span) != 2 or not all(map(is_index, span)):
                raise self.fault(key, f"must be a list of [start, end] positions, not {spans!r}")
        return spans

    def strings(self, key: str) -> str | list[str]:
        """A string, or several to choose from."""
        value = self.get(key)
        several = value if isinstance(value, list) and value else [value]
        if not all(isinstance(item, str) for item in several):
            raise self.fault(key, f"must be a string or a list of strings, not {value!r}")
        return value

    def mask(self, key: str, size: tuple[int | None, int | None]) -> Mask:
        """Polygons, or a run-length encoding of an image of this (height, width)."""
        value = self.get(key)
        problem = mask_problem(value, size)
        if problem:
            raise self.fault(key, problem)
        return value


def is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
