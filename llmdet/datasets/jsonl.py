"""Annotations as JSON Lines, indexed once and read row by row.

A file of a million rows is neither parsed at start-up nor held in memory: the offset of every row
is written once into an index beside the file, the index is memory-mapped, and a row is parsed when
it is asked for. All workers and ranks share one copy, the page cache of the operating system.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from llmdet.datasets.index_format import IndexHeader, IndexRecords
from llmdet.datasets.jsonl_index import (
    file_digest,
    file_stamp,
    find_or_build_index,
    open_checked,
    whole_document_hint,
)
from llmdet.errors import DataError

logger = logging.getLogger(__name__)


class IndexedJsonl(Sequence[dict[str, Any]]):
    """Rows of a JSONL file in any order, parsed on demand.

    The first open reads the file once and writes ``NAME.jsonl.index`` beside it, or into the
    user's cache directory where the folder is read-only. Later opens trust size and time of
    modification, compare contents where only the time differs, and build the index again (with a
    line in the log) where the contents differ. Blank lines are skipped, ``CRLF``, a UTF-8 byte
    order mark and a missing final newline are understood. Instances may be pickled and forked.

    An index whose bytes have changed since it was written is noticed by its checksums and built
    again, so that no wrong row is read.

    Args:
        path: An uncompressed JSONL file with one JSON object per line.
        max_bad_rows: How many lines that are not a JSON object are skipped (they are counted in
            :attr:`bad_lines` and logged) before opening fails.

    Raises:
        DataError: On a missing, compressed or UTF-16 file; on more than ``max_bad_rows`` broken
            lines; on reading a row after the contents changed while the file was open.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bad_rows: int = 0) -> None:
        self.path = os.fspath(path)
        self.max_bad_rows = max_bad_rows
        self._open()

    def _open(self, distrust: bool = False) -> None:
        file = open_checked(self.path)
        with file:
            self._fd = os.dup(file.fileno())
            self._close = weakref.finalize(self, os.close, self._fd)
            index_path, header = find_or_build_index(self.path, file, distrust)
        self._stamp = file_stamp(self._fd)
        self._take(IndexRecords(index_path, header), header)

    def _take(self, records: IndexRecords, header: IndexHeader) -> None:
        """Use an index."""
        self._records = records
        self._digest = header.digest
        # Broken rows are stored behind the good ones.
        rows = records.rows
        if header.broken_rows and not records.is_whole(header.rows, len(rows)):
            self._replace_index()
            return
        self._rows = rows[: header.rows]
        self._starts = self._rows["start"]
        self._lengths = self._rows["length"]
        self._lines = self._rows["line"]
        self.bad_lines: tuple[int, ...] = tuple(rows["line"][header.rows :].tolist())
        self._check_bad_rows(rows[header.rows :])

    def _check_bad_rows(self, broken: np.ndarray) -> None:
        if not len(broken):
            return
        first = broken[0]
        text = self._read(int(first["start"]), int(first["length"]))
        problem = _json_problem(text)
        where = f"{self.path}:{first['line']}"
        if len(broken) > self.max_bad_rows:
            unclosed = text[:1] == b"[" or not text.endswith(b"}")
            hint = whole_document_hint(len(self), int(first["line"])) if unclosed else ""
            raise DataError(
                f"{where}: {problem}; {len(broken)} line(s) of the file are broken and "
                f"max_bad_rows={self.max_bad_rows}. Repair them or raise max_bad_rows.{hint}"
            )
        logger.warning("%s: %s; %d broken line(s) are skipped", where, problem, len(broken))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        """The parsed row; negative indices count from the end."""
        raw = self.line(index)
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise DataError(f"{self.location(index)}: {_json_problem(raw)}") from None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def line(self, index: int) -> bytes:
        """The row's bytes without its line ending."""
        self._verify(index)
        return self._read(int(self._starts[index]), int(self._lengths[index]))

    def line_number(self, index: int) -> int:
        """The row's line in the file, counted from 1 and including blank lines."""
        self._verify(index)
        return int(self._lines[index])

    def location(self, index: int) -> str:
        """``file:line`` of a row, for messages."""
        return f"{self.path}:{self.line_number(index)}"

    @property
    def bad_locations(self) -> tuple[str, ...]:
        """``file:line`` of the rows that are skipped."""
        return tuple(f"{self.path}:{line}" for line in self.bad_lines)

    @property
    def aspect_ratios(self) -> np.ndarray:
        """[len] float32 width / height of every row, NaN where the row lacks either; read-only."""
        if not self._records.is_whole(0, len(self)):
            self._replace_index()
        return self._rows["aspect_ratio"]

    def _verify(self, index: int) -> None:
        position = range(len(self))[index]
        if not self._records.is_whole(position, position + 1):
            self._replace_index()

    def _replace_index(self) -> None:
        """Use an index that is whole in place of one whose bytes have changed on the disk."""
        logger.warning("%s: its index is damaged; indexing the file again", self.path)
        digest = self._digest
        self._open(distrust=True)
        if self._digest != digest:
            raise DataError(self._changed())

    def _read(self, start: int, length: int) -> bytes:
        if file_stamp(self._fd) != self._stamp:
            self._accept_or_refuse_change()
        # pread shares no file position, so that forked workers may use one descriptor.
        raw = os.pread(self._fd, length, start)
        if len(raw) != length:
            raise DataError(self._changed())
        return raw

    def _accept_or_refuse_change(self) -> None:
        size, mtime_ns = file_stamp(self._fd)
        if size != self._stamp[0] or file_digest(self._fd) != self._digest:
            raise DataError(self._changed())
        self._stamp = (size, mtime_ns)

    def _changed(self) -> str:
        return (
            f"{self.path}: the file changed while it was open, so that its index no longer "
            "fits. Start again; the index will be rebuilt."
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "max_bad_rows": self.max_bad_rows, "digest": self._digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self.max_bad_rows = state["max_bad_rows"]
        self._open()
        if self._digest != state["digest"]:
            raise DataError(self._changed())


def _json_problem(text: bytes) -> str:
    try:
        text.decode()
        value = orjson.loads(text)
    except UnicodeDecodeError as error:
        return (
            f"not UTF-8 (byte {text[error.start]:#04x} at character {error.start + 1} of the line)"
        )
    except orjson.JSONDecodeError as error:
        return f"not valid JSON ({error.msg}, at character {error.pos + 1} of the line)"
    return f"a row must be a JSON object, this one is a {type(value).__name__}"
