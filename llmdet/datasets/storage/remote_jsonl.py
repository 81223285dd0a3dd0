"""JSONL behind a URL: indexed once, each row read by its range of bytes when it is asked for."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from filelock import FileLock

from llmdet.datasets.index_files import remove_leftovers, write_whole
from llmdet.datasets.index_format import IndexHeader, IndexRecords
from llmdet.datasets.jsonl import IndexedJsonl
from llmdet.datasets.jsonl_index import (
    INDEX_SUFFIX,
    check_beginning,
    write_index,
)
from llmdet.datasets.storage.cache import cache_home
from llmdet.datasets.storage.objects import ObjectStamp, ObjectStore, store_of
from llmdet.errors import DataError, StorageError

logger = logging.getLogger(__name__)


class RemoteJsonl(IndexedJsonl):
    """:class:`IndexedJsonl` of a URL; its index is in the user's cache.

    The object is read once from its start to make the index, again when its version changes.
    Rows are not cached: each is needed once an epoch.

    Args:
        url: of an uncompressed JSONL.
        backend_args: how it is read.
        max_bad_rows: as of :class:`IndexedJsonl`.

    Raises:
        DataError: as :class:`IndexedJsonl`.
        StorageError: its server does not answer.
    """

    def __init__(
        self,
        url: str,
        backend_args: Mapping[str, Any] | None = None,
        *,
        max_bad_rows: int = 0,
    ) -> None:
        self.backend_args = backend_args
        super().__init__(url, max_bad_rows=max_bad_rows)

    def _open(self, distrust: bool = False) -> None:
        self._store = store_of(self.path, self.backend_args)
        try:
            stamp = self._store.stamp(self.path)
        except FileNotFoundError:
            raise DataError(f"{self.path} does not exist") from None
        place = _index_place(self.path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(place.with_name(f"{place.name}.lock")):
                header = _known(place, stamp, distrust) or _build(self._store, self.path, place)
        except StorageError:
            raise
        except OSError as error:
            raise DataError(
                f"{self.path}: its index cannot be written ({place.parent}: {error.strerror}). "
                "Make the folder writable or set XDG_CACHE_HOME."
            ) from None
        self._take(IndexRecords(place, header), header)

    def _read(self, start: int, length: int) -> bytes:
        return self._store.get_range(self.path, start, length)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "backend_args": self.backend_args}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.backend_args = state["backend_args"]
        super().__setstate__(state)


def _index_place(url: str) -> Path:
    key = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    return cache_home() / "jsonl" / f"{url.rpartition('/')[2]}.{key}{INDEX_SUFFIX}"


def _known(place: Path, stamp: ObjectStamp, distrust: bool) -> IndexHeader | None:
    header = IndexHeader.read(place)
    if header is None or (header.size, header.mtime_ns) != (stamp.size, stamp.version):
        return None
    whole = not distrust or IndexRecords(place, header).is_whole(0, header.records)
    return header if whole else None


def _build(store: ObjectStore, url: str, place: Path) -> IndexHeader:
    def stamp() -> tuple[int, int]:
        found = store.stamp(url)
        return found.size, found.version

    def write(index_file: BinaryIO) -> IndexHeader:
        def index(file: io.BufferedReader) -> IndexHeader:
            check_beginning(url, file.peek(8)[:8])
            index_file.seek(0)  # a scan that failed begins again
            index_file.truncate()
            return write_index(url, cast(BinaryIO, file), index_file, stamp, int)

        return store.scan(url, index)

    remove_leftovers(place)
    _, header = write_whole((place,), write, url)
    logger.info("%s: indexed %d rows into %s", url, header.rows, place)
    return header
