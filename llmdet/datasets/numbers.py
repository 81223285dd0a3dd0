"""Which numbers annotations may hold."""

from __future__ import annotations

import re
from typing import Any, TypeGuard

from llmdet.errors import DataError

#: float32 holds no larger one.
_LARGEST = 3.4e38
#: Of a side of a picture, in pixels; formats hold no larger one.
_LONGEST = (1 << 31) - 1


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that float32 can hold: JSON's may be of any size."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


def is_length(value: Any) -> TypeGuard[int]:
    """Whether a value is a positive whole number of pixels."""
    return type(value) is int and 1 <= value <= _LONGEST


def number_of_id(identity: Any, where: str) -> int:
    """The whole number that an id is or ends with: 7 of 7, "7" and "sa_7".

    Raises:
        DataError: it has none.
    """
    found = re.search(r"\d+$", str(identity))
    if isinstance(identity, (int, str)) and found:
        return int(found[0])
    raise DataError(f"{where}: the id {identity!r} is no number and does not end with one")
