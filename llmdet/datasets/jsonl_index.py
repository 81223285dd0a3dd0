"""The index of a JSONL file: where it is, whether it still fits, and how it is built."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from llmdet.datasets.index_files import remove_leftovers, write_whole
from llmdet.datasets.index_format import (
    BLOCK_ROWS,
    HEADER_SIZE,
    ROW,
    IndexHeader,
    IndexRecords,
    sum_of,
)
from llmdet.errors import DataError

logger = logging.getLogger(__name__)

INDEX_SUFFIX = ".index"

_MAX_ROW_BYTES = 1 << 30
_READ_BUFFER_BYTES = 1 << 22
_ROWS_PER_WRITE = 1 << 16
_PROGRESS_SECONDS = 15.0
_HOPELESS = 1000  # broken lines at the start of a file after which it is given up
# A file written again within the resolution of its time stamp keeps its mtime. Where the last
# write is this recent the stamp is not trusted and the next open compares contents.
_RECENT_WRITE_NS = 2_000_000_000

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip -k"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dk"),
    b"\xfd7zXZ": ("xz", "xz -dk"),
    b"BZh": ("bzip2", "bunzip2 -k"),
}
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


def aspect_ratio(row: dict[str, Any]) -> float:
    """``width / height`` of a row, NaN where either is missing or not a positive number."""
    width, height = row.get("width"), row.get("height")
    if not isinstance(width, (int, float)) or not isinstance(height, (int, float)):
        return math.nan
    return width / height if width > 0 and height > 0 else math.nan


def open_checked(path: str) -> BinaryIO:
    """Open a JSON file, or say in a sentence why it cannot be read in parts."""
    try:
        file = open(path, "rb", buffering=_READ_BUFFER_BYTES)  # noqa: SIM115
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from None
    try:
        check_beginning(path, file.read(8))
    except DataError:
        file.close()
        raise
    return file


def check_beginning(path: str, begin: bytes) -> None:
    """Refuse a file that is compressed or UTF-16 by its first 8 bytes.

    Raises:
        DataError: names the command that makes a file of it that can be read.
    """
    problem = None
    for magic, (kind, command) in _COMPRESSED.items():
        if begin.startswith(magic):
            problem = (
                f"is {kind}-compressed, and no part of a compressed file can be reached at "
                f"random. Unpack it: {command} {path}"
            )
    if begin.startswith(_UTF16_BOMS):
        problem = f"is UTF-16; JSON is UTF-8. Convert it: iconv -f UTF-16 -t UTF-8 {path}"
    if problem:
        raise DataError(f"{path}: {problem}")


def find_or_build_index(
    path: str, file: BinaryIO, distrust: bool = False
) -> tuple[Path, IndexHeader]:
    """The index of an open file, and its header.

    Args:
        path: of the file.
        file: the file.
        distrust: verify an index that is there as a whole.
    """
    with _one_builder(file) as alone:
        stale = False
        for index_path in _index_places(path):
            header = IndexHeader.read(index_path)
            if header is not None and distrust:
                whole = IndexRecords(index_path, header).is_whole(0, header.records)
                header = header if whole else None
            if header is not None:
                fresh = _refresh(file, index_path, header)
                if fresh is not None:
                    return index_path, fresh
                stale = True
        if stale:
            logger.warning("%s has changed since it was indexed; indexing it again", path)
        for index_path in _index_places(path) if alone else ():
            remove_leftovers(index_path)
        return _build_index(path, file)


def _index_places(path: str) -> tuple[Path, Path]:
    """Where the index may be: beside the file, or in the cache of the user."""
    real = Path(os.path.realpath(path))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.blake2b(os.fsencode(real), digest_size=8).hexdigest()
    return (
        real.with_name(real.name + INDEX_SUFFIX),
        cache / "llmdet" / "jsonl" / f"{real.name}.{key}{INDEX_SUFFIX}",
    )


def _refresh(file: BinaryIO, index_path: Path, header: IndexHeader) -> IndexHeader | None:
    """The header if it still describes the file, with a new time stamp where only that changed."""
    size, mtime_ns = file_stamp(file.fileno())
    if size != header.size:
        return None
    if mtime_ns == header.mtime_ns:
        return header
    if file_digest(file.fileno()) != header.digest:
        return None
    fresh = IndexHeader(
        header.rows,
        header.broken_rows,
        header.blank_lines,
        size,
        _trusted_mtime(mtime_ns),
        header.digest,
    )
    # An index that cannot be updated stays valid; it only costs the comparison again.
    with contextlib.suppress(OSError), index_path.open("r+b") as index_file:
        index_file.write(fresh.pack())
    return fresh


def _build_index(path: str, file: BinaryIO) -> tuple[Path, IndexHeader]:
    def write(index_file: BinaryIO) -> IndexHeader:
        stamp = partial(file_stamp, file.fileno())
        return write_index(path, file, index_file, stamp, _trusted_mtime)

    places = _index_places(path)
    index_path, header = write_whole(places, write, path)
    _announce(path, index_path, header, places[0])
    return index_path, header


def _announce(path: str, index_path: Path, header: IndexHeader, beside: Path) -> None:
    logger.info("%s: indexed %d rows into %s", path, header.rows, index_path)
    if index_path != beside:
        logger.warning("%s is not writable: the index is %s", beside.parent, index_path)
    if header.blank_lines:
        logger.warning("%s: skipped %d blank line(s)", path, header.blank_lines)


def write_index(
    path: str,
    file: BinaryIO,
    index_file: BinaryIO,
    stamp: Callable[[], tuple[int, int]],
    trusted: Callable[[int], int],
) -> IndexHeader:
    """Read a file once from its start: offsets, aspect ratios and the hash of its bytes.

    Args:
        path: for messages.
        file: the JSONL file.
        index_file: is written.
        stamp: tells size and version (time of modification) of the file.
        trusted: what of a version is written into the header.

    Raises:
        DataError: it is no JSONL, or changes meanwhile.
    """
    before = stamp()
    file.seek(0)
    digest = hashlib.blake2b(digest_size=16)
    index_file.write(bytes(HEADER_SIZE))
    rows: list[tuple[int, int, int, float]] = []
    broken: list[tuple[int, int, int, float]] = []
    written = blank = offset = 0
    next_report = time.monotonic() + _PROGRESS_SECONDS
    for number, line in enumerate(iter(partial(file.readline, _MAX_ROW_BYTES), b""), start=1):
        if len(line) == _MAX_ROW_BYTES:
            raise DataError(
                f"{path}:{number}: the line is longer than 1 GiB, so that this is hardly JSON "
                f"Lines.{whole_document_hint(0, number)}"
            )
        digest.update(line)
        lead = len(_UTF8_BOM) if number == 1 and line.startswith(_UTF8_BOM) else 0
        text = line[lead:].rstrip(b"\r\n \t")
        if text:
            ratio = _ratio_or_none(text)
            row = (offset + lead, len(text), number, math.nan if ratio is None else ratio)
            (broken if ratio is None else rows).append(row)
        else:
            blank += 1
        if len(broken) == _HOPELESS and not written + len(rows):
            raise DataError(
                f"{path}: none of the first {number} lines is a JSON object."
                f"{whole_document_hint(0, 1)}"
            )
        offset += len(line)
        if len(rows) == _ROWS_PER_WRITE:
            written += _append(index_file, rows)
            if time.monotonic() > next_report:
                logger.info("%s: indexing, %d%%", path, 100 * offset // max(before[0], 1))
                next_report = time.monotonic() + _PROGRESS_SECONDS
    written += _append(index_file, rows)
    broken_rows = _append(index_file, broken)
    if stamp() != before:
        raise DataError(f"{path}: the file changed while it was being indexed. Start again.")
    size, version = before
    header = IndexHeader(written, broken_rows, blank, size, trusted(version), digest.digest())
    _append_sums(index_file)
    index_file.seek(0)
    index_file.write(header.pack())
    return header


def _append_sums(index_file: BinaryIO) -> None:
    index_file.seek(HEADER_SIZE)
    blocks = iter(partial(index_file.read, BLOCK_ROWS * ROW.itemsize), b"")
    index_file.write(b"".join([sum_of(block) for block in blocks]))


def _append(index_file: BinaryIO, rows: list[tuple[int, int, int, float]]) -> int:
    index_file.write(np.array(rows, dtype=ROW).tobytes())
    count = len(rows)
    rows.clear()
    return count


def _ratio_or_none(text: bytes) -> float | None:
    """The aspect ratio of a row, None where the text is not a JSON object."""
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return aspect_ratio(row) if isinstance(row, dict) else None


def whole_document_hint(good_rows: int, first_line: int) -> str:
    if good_rows or first_line > 1:
        return ""
    return (
        " The file looks like one JSON document (COCO?) rather than JSON Lines: "
        "tools/convert/data.py converts it."
    )


def file_stamp(fd: int) -> tuple[int, int]:
    """Size in bytes and time of modification in ns of the open file."""
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns


def _trusted_mtime(mtime_ns: int) -> int:
    return mtime_ns if time.time_ns() - mtime_ns > _RECENT_WRITE_NS else 0


def file_digest(fd: int) -> bytes:
    """blake2b-128 of all bytes of the open file."""
    digest = hashlib.blake2b(digest_size=16)
    offset = 0
    while block := os.pread(fd, _READ_BUFFER_BYTES, offset):
        digest.update(block)
        offset += len(block)
    return digest.digest()


@contextlib.contextmanager
def _one_builder(file: BinaryIO) -> Iterator[bool]:
    """Let one process at a time look for and build the index, where the file system can lock.

    Without a lock (False) several processes build the same index, and the last rename wins.
    """
    locked = _try_lock(file)
    try:
        yield locked
    finally:
        if locked:
            _unlock(file)


def _try_lock(file: BinaryIO) -> bool:
    try:
        import fcntl  # absent on Windows

        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
    except (ImportError, OSError):
        return False
    return True


def _unlock(file: BinaryIO) -> None:
    import fcntl

    fcntl.flock(file.fileno(), fcntl.LOCK_UN)
