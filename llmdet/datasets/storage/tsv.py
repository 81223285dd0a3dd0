"""Lines of TSV files by the byte at which they begin: Rexverse-2M's and HumanRef-CoT's layout.

A line has columns with tabs between them. ``NAME.tsv.lineidx``, or ``NAME.lineidx``, holds the
first byte of every line, one number a line. A file may also lie in parts that are cut anywhere,
``NAME_part_0.tsv``, ``NAME_part_1.tsv`` ..., which are read as one.

Pictures are lines of a key and the picture in base64. Their address is that of the file and their
first byte, as if the file were a folder: ``NAME.tsv/4711``.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np

from llmdet.datasets.storage.objects import is_url
from llmdet.errors import DataError

logger = logging.getLogger(__name__)

_ADDRESS = re.compile(r"(.+\.tsv)/([0-9]{1,18})", re.DOTALL)
_PART = re.compile(r"_part_([0-9]+)\.tsv$")
_MOST = 1 << 29  # bytes of a line; where no line ends in so many, the offset is wrong


def split_line(path: str) -> tuple[str, int] | None:
    """File and first byte of a picture's address, None for anything else."""
    found = None if is_url(path) else _ADDRESS.fullmatch(path)
    return (found[1], int(found[2])) if found and not Path(path).exists() else None


def read_picture_line(path: str, start: int) -> bytes:
    """The picture in a line.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: no line begins there, or it holds no picture.
    """
    file = open_tsv(path)
    columns = file.line_at(start)
    where = f"{path}: line at byte {start}"
    if len(columns) != 2:
        raise DataError(
            f"{where} has {len(columns)} columns; a picture's line has a key and base64"
        )
    try:
        return base64.b64decode(columns[1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where} holds no base64 ({error})") from None


@lru_cache(maxsize=64)
def open_tsv(path: str) -> TsvFile:
    """The file, which is opened once in a process."""
    return TsvFile(path)


def parts_of(path: Path) -> list[Path]:
    """The files that a name stands for: itself, or its parts in their order; none."""
    if path.is_file():
        return [path]
    found = {
        int(match[1]): part
        for part in path.parent.glob(f"{path.stem}_part_*.tsv")
        if (match := _PART.search(part.name))
    }
    if sorted(found) != list(range(len(found))):
        raise DataError(f"{path}: of its parts there are {sorted(found)}; they are counted from 0")
    return [found[number] for number in range(len(found))]


class TsvFile:
    """A TSV file of which lines are read where they lie; nothing is read when it is opened.

    Args:
        path: the file, also where it lies in parts.

    Raises:
        FileNotFoundError: there is neither the file nor its parts.
        DataError: a part is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.parts = parts_of(self.path)
        if not self.parts:
            raise FileNotFoundError(f"{path} does not exist, nor do its parts")
        self._starts = [0, *accumulate(part.stat().st_size for part in self.parts)]

    @cached_property
    def offsets(self) -> np.ndarray:
        """[n] int64, the first byte of every line; of a file without lineidx it is read once.

        Raises:
            DataError: the lineidx is none, or not this file's.
        """
        index = self._index_file()
        if index is None:
            logger.info("%s has no .lineidx: it is read once to find its lines", self.path)
            return np.fromiter(self._find_lines(), np.int64)
        try:
            offsets = np.asarray(index.read_bytes().split(), np.int64)
        except (ValueError, OverflowError):
            raise DataError(f"{index}: a lineidx has one number a line, and this has not") from None
        size = self._starts[-1]
        if len(offsets) and (offsets[0] or offsets.max() >= size or (np.diff(offsets) <= 0).any()):
            raise DataError(
                f"{index} does not fit {self.path}, which has {size:,} bytes: its numbers must "
                "rise from 0 and stay below; copy both files again"
            )
        return offsets

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[list[bytes]]:
        """The columns of every line."""
        return map(self.line_at, self.offsets.tolist())

    def __getitem__(self, number: int) -> list[bytes]:
        """The columns of a line, counted from 0."""
        return self.line_at(int(self.offsets[number]))

    def line_at(self, start: int) -> list[bytes]:
        """The columns of the line that begins at a byte.

        Raises:
            DataError: no line begins there, or the file ends within it.
        """
        where = f"{self.path}: line at byte {start}"
        if not 0 <= start < self._starts[-1]:
            raise DataError(f"{where}: the file has {self._starts[-1]:,} bytes")
        if start and self._read(start - 1, 1) != b"\n":
            raise DataError(f"{where}: no line begins there, but in the middle of one")
        line = self._read_line(start)
        if len(line) >= _MOST:
            raise DataError(f"{where} does not end within {_MOST:,} bytes")
        return line.rstrip(b"\r\n").split(b"\t")

    def _index_file(self) -> Path | None:
        names = (f"{self.path}.lineidx", self.path.with_suffix(".lineidx"))
        return next((Path(name) for name in names if Path(name).is_file()), None)

    def _find_lines(self) -> Iterator[int]:
        start, is_new = 0, True
        for part in self.parts:
            with part.open("rb") as file:
                for line in file:
                    if is_new:
                        yield start
                    start, is_new = start + len(line), line.endswith(b"\n")

    def _read(self, start: int, length: int) -> bytes:
        part = bisect_right(self._starts, start) - 1
        with self.parts[part].open("rb") as file:
            file.seek(start - self._starts[part])
            return file.read(length)

    def _read_line(self, start: int) -> bytes:
        """The bytes of a line, which a part may end within."""
        line = b""
        for part in range(bisect_right(self._starts, start) - 1, len(self.parts)):
            with self.parts[part].open("rb") as file:
                file.seek(max(start - self._starts[part], 0))
                line += file.readline(_MOST - len(line))
            if line.endswith(b"\n"):
                break
        return line
