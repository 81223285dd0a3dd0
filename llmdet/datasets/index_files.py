"""Index files are written under a temporary name and renamed: no reader ever sees half of one."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from llmdet.errors import DataError
from llmdet.utils.whole_files import TEMPORARY, whole_file

Result = TypeVar("Result")


def write_whole(
    places: Sequence[Path], write: Callable[[BinaryIO], Result], name: str
) -> tuple[Path, Result]:
    """Write an index to the first of several places that can be written.

    Args:
        places: files, the best one first.
        write: writes an index into a file that can be read too; called again for the next place.
        name: what is indexed, for the error.

    Returns:
        The place, and what ``write`` gave.

    Raises:
        DataError: none of the places can be written.
    """
    problems = []
    for place in places:
        try:
            with whole_file(place) as file:
                result = write(file)
        except OSError as error:
            problems.append(f"{place.parent}: {error.strerror}")
        else:
            return place, result
    raise DataError(
        f"{name}: its index can be written nowhere ({'; '.join(problems)}). Make one of the "
        "folders writable or set XDG_CACHE_HOME."
    )


def remove_leftovers(place: Path) -> None:
    """Remove what writers of an index that were killed have left; to be called by the only one."""
    for leftover in place.parent.glob(f"{glob.escape(place.name)}.*{TEMPORARY}"):
        with contextlib.suppress(OSError):
            leftover.unlink()
