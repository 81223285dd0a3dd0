"""A cache on the local disk that processes share and that never grows beyond its size."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
import time
import zlib
from pathlib import Path

from filelock import FileLock

from llmdet.utils.whole_files import TEMPORARY, whole_file

logger = logging.getLogger(__name__)

_HEADER = struct.Struct("<4sIQ")  # magic, CRC-32 and number of bytes of the content
_MAGIC = b"LLMC"
_TOTAL = struct.Struct("<q")
_TOTAL_FILE = "total"
_LOCK_FILE = "lock"
_KEPT_SHARE = 0.9  # of the room, after something was evicted
_TOUCH_NS = 60_000_000_000  # an entry read more often than this is marked as used but once
_ABANDONED_NS = 3600_000_000_000  # age of a temporary file whose writer must have died


def cache_home() -> Path:
    """The folder for what programs may write again: ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmdet"


class DiskCache:
    """Bytes by key; what was not used for longest is evicted where room is needed.

    Entries are spread over folders, each with a lock and a share of the room of its own, so that
    processes wait for each other rarely and an eviction looks at few files. Entries appear whole,
    by renaming; one that was damaged counts as absent. A cache that cannot be written is none.

    Args:
        folder: on a local disk; made where needed.
        max_bytes: of all entries together; 0 keeps none.
        parts: folders that entries are spread over. An entry larger than a part is not kept.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int, parts: int = 64) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.parts = parts
        self._room = max_bytes // parts
        self._failed = False

    def get(self, key: str) -> bytes | None:
        """The bytes of a key, None where they are not here."""
        if not self._room:
            return None
        path = self._path(key)
        try:
            with path.open("rb") as file:
                stored = file.read()
                used_ns = os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            return None
        content = _checked(stored)
        with contextlib.suppress(OSError):
            if content is None:
                path.unlink()
            elif time.time_ns() - used_ns > _TOUCH_NS:
                os.utime(path)
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep bytes, where there is room for them."""
        size = _HEADER.size + len(content)
        if size > self._room:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent / _LOCK_FILE):
                self._write(path, content, size)
        except OSError as error:
            if not self._failed:
                logger.warning("the cache %s cannot be written (%s)", self.folder, error.strerror)
            self._failed = True

    def _path(self, key: str) -> Path:
        digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return self.folder / f"{int(digest[:4], 16) % self.parts:03d}" / digest

    def _write(self, path: Path, content: bytes, size: int) -> None:
        if path.exists():  # another process was quicker
            return
        total = _read_total(path.parent)
        if total is None or total + size > self._room:
            total = _evict(path.parent, int(self._room * _KEPT_SHARE) - size)
        # Counted before it is there: after a kill in between the count is too high, never too low.
        (path.parent / _TOTAL_FILE).write_bytes(_TOTAL.pack(total + size))
        with whole_file(path) as file:
            file.write(_HEADER.pack(_MAGIC, zlib.crc32(content), len(content)))
            file.write(content)


def _checked(stored: bytes) -> bytes | None:
    if len(stored) < _HEADER.size:
        return None
    magic, checksum, length = _HEADER.unpack_from(stored)
    content = stored[_HEADER.size :]
    whole = magic == _MAGIC and length == len(content) and checksum == zlib.crc32(content)
    return content if whole else None


def _read_total(folder: Path) -> int | None:
    """Bytes of the entries of a folder, None where their number is not known."""
    try:
        (total,) = _TOTAL.unpack((folder / _TOTAL_FILE).read_bytes())
    except (OSError, struct.error):
        return None
    return total


def _evict(folder: Path, target: int) -> int:
    """Remove what was not used for longest until ``target`` bytes remain; returns how many do."""
    entries = []
    for entry in os.scandir(folder):
        if entry.name in (_TOTAL_FILE, _LOCK_FILE):
            continue
        status = entry.stat()
        if entry.name.endswith(TEMPORARY) and time.time_ns() - status.st_mtime_ns < _ABANDONED_NS:
            continue
        age = 0 if entry.name.endswith(TEMPORARY) else status.st_mtime_ns
        entries.append((age, entry.path, status.st_size))
    total = sum(size for _, _, size in entries)
    for _, path, size in sorted(entries):
        if total <= target:
            break
        os.unlink(path)
        total -= size
    return total
