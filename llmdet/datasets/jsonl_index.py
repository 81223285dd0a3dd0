"""The index of a JSONL file: where each row begins, its line and its aspect ratio.

Layout of the file, little-endian: a header that identifies the JSONL file it was built from (size,
time of modification, hash of its bytes), then one :data:`ROW` record for every row, the broken
rows last. It is written under a temporary name and renamed, so that a reader never sees half of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from llmdet.errors import DataError

logger = logging.getLogger(__name__)

INDEX_SUFFIX = ".index"
ROW = np.dtype([("start", "<i8"), ("length", "<u4"), ("line", "<u4"), ("aspect_ratio", "<f4")])

_MAGIC = b"LLMDETIX"
_FORMAT_VERSION = 1
_HEADER = struct.Struct("<8sIqqqqq16s")
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


@dataclass(frozen=True)
class IndexHeader:
    """What the index knows about the file it was built from."""

    rows: int
    broken_rows: int
    blank_lines: int
    size: int  # bytes
    mtime_ns: int  # 0 where the time stamp cannot be trusted
    digest: bytes  # blake2b-128 of the whole file

    def pack(self) -> bytes:
        return _HEADER.pack(
            _MAGIC,
            _FORMAT_VERSION,
            self.rows,
            self.broken_rows,
            self.blank_lines,
            self.size,
            self.mtime_ns,
            self.digest,
        )

    @classmethod
    def read(cls, path: Path) -> IndexHeader | None:
        """The header of an index, or None where it is missing, torn or of another version."""
        try:
            with path.open("rb") as file:
                raw = file.read(_HEADER.size)
                index_size = os.fstat(file.fileno()).st_size
        except OSError:
            return None
        if len(raw) < _HEADER.size:
            return None
        magic, version, *fields = _HEADER.unpack(raw)
        header = cls(*fields)
        stored = header.rows + header.broken_rows
        whole = index_size == _HEADER.size + stored * ROW.itemsize
        return header if magic == _MAGIC and version == _FORMAT_VERSION and whole else None


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


def find_or_build_index(path: str, file: BinaryIO) -> tuple[Path, IndexHeader]:
    with _one_builder(file):
        stale = False
        for index_path in _index_places(path):
            header = IndexHeader.read(index_path)
            if header is not None:
                fresh = _refresh(file, index_path, header)
                if fresh is not None:
                    return index_path, fresh
                stale = True
        if stale:
            logger.warning("%s has changed since it was indexed; indexing it again", path)
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
    beside, cached = _index_places(path)
    problems = []
    for index_path in (beside, cached):
        temporary = index_path.with_name(f"{index_path.name}.{os.getpid()}.{time.time_ns()}.tmp")
        try:
            index_path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as index_file:
                stamp = partial(file_stamp, file.fileno())
                header = write_index(path, file, index_file, stamp, _trusted_mtime)
            os.replace(temporary, index_path)
        except OSError as error:
            problems.append(f"{index_path.parent}: {error.strerror}")
            continue
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        _announce(path, index_path, header, beside)
        return index_path, header
    raise DataError(
        f"{path}: its index can be written nowhere ({'; '.join(problems)}). Make one of the "
        "folders writable or set XDG_CACHE_HOME."
    )


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
    index_file.write(bytes(_HEADER.size))
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
    index_file.seek(0)
    index_file.write(header.pack())
    return header


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


def map_rows(index_path: Path, header: IndexHeader) -> np.ndarray:
    count = header.rows + header.broken_rows
    if not count:  # an empty file cannot be mapped
        return np.empty(0, ROW)
    return np.memmap(index_path, dtype=ROW, mode="r", offset=_HEADER.size, shape=(count,))


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
def _one_builder(file: BinaryIO) -> Iterator[None]:
    """Let one process at a time look for and build the index, where the file system can lock.

    Without a lock several processes build the same index, and the last rename wins.
    """
    locked = _try_lock(file)
    try:
        yield
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
