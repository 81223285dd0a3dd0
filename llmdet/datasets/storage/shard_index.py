"""The index of tar shards: where each member lies, and which members make a sample.

Layout of the file, little-endian: a header, one :data:`MEMBER` for every regular file in the order
of the hashes of their names, one :data:`SAMPLE` for every sample in the order of the shards (those
whose json is no object last), and the names of the samples' pictures. It is built by reading every
shard once, written under a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import struct
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from filelock import FileLock

from llmdet.datasets.index_files import write_whole
from llmdet.datasets.jsonl_index import aspect_ratio
from llmdet.datasets.storage.cache import cache_home
from llmdet.datasets.storage.objects import is_url, store_of
from llmdet.errors import DataError, StorageError

logger = logging.getLogger(__name__)

MEMBER = np.dtype([("name_hash", "<u8"), ("shard", "<u4"), ("start", "<i8"), ("length", "<u4")])
SAMPLE = np.dtype(
    [
        ("shard", "<u4"),
        ("start", "<i8"),  # of the json
        ("length", "<u4"),
        ("aspect_ratio", "<f4"),
        ("name_start", "<i8"),  # of the picture, or of a broken json
        ("name_length", "<u2"),
    ]
)
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")

_MAGIC = b"LLMDETTX"
_FORMAT_VERSION = 1
_HEADER = struct.Struct("<8sIqqqqq16s")
_PROGRESS_SECONDS = 15.0


@dataclass(frozen=True)
class ShardIndex:
    """The index of some shards, mapped into memory."""

    members: np.ndarray  # [n] MEMBER, by name_hash
    samples: np.ndarray  # [n] SAMPLE
    broken: np.ndarray  # [n] SAMPLE whose json is no object
    without_json: int  # pictures that no json describes
    names: np.ndarray  # [n] uint8

    def name(self, sample: np.void) -> str:
        """Name of a sample's picture within its shard."""
        start = int(sample["name_start"])
        return self.names[start : start + int(sample["name_length"])].tobytes().decode()

    def find(self, name: str) -> np.ndarray:
        """[n] the MEMBERs of a name, of all shards."""
        key = np.uint64(name_hash(name))
        hashes = self.members["name_hash"]
        first = int(np.searchsorted(hashes, key, "left"))
        last = first
        while last < len(hashes) and hashes[last] == key:
            last += 1
        return self.members[first:last]


def name_hash(name: str) -> int:
    """64 bits that stand for the name of a member."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def open_index(shards: Sequence[str], backend_args: Mapping[str, Any] | None = None) -> ShardIndex:
    """Map the index of shards, which is built where there is none or a shard has changed.

    Args:
        shards: files or URLs, in the order of their samples.
        backend_args: how URLs are read.

    Raises:
        DataError: a shard is missing or is no whole, uncompressed tar.
    """
    digest = _stamps(shards, backend_args)
    places = _index_places(shards)
    found = next((index for place in places if (index := _map(place, digest))), None)
    if found is not None:
        return found
    lock = cache_home() / "locks" / places[-1].name
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # without a lock several processes build the same
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(lock))
        found = next((index for place in places if (index := _map(place, digest))), None)
        return found or _build(shards, backend_args, digest, places)


def _index_places(shards: Sequence[str]) -> tuple[Path, ...]:
    """Where the index may be: beside the first shard, or in the cache of the user."""
    folder = os.path.dirname(shards[0])
    relative = "\n".join(os.path.relpath(shard, folder) for shard in shards)
    base = os.path.basename(shards[0])
    beside = _hashed(base, relative)
    cached = cache_home() / "shards" / _hashed(base, "\n".join(map(os.path.abspath, shards)))
    if is_url(shards[0]):
        return (cache_home() / "shards" / _hashed(base, "\n".join(shards)),)
    return Path(folder) / beside, cached


def _hashed(name: str, text: str) -> str:
    return f"{name}.{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.index"


def _stamps(shards: Sequence[str], backend_args: Mapping[str, Any] | None) -> bytes:
    """A hash that changes when a shard does."""
    digest = hashlib.blake2b(digest_size=16)
    for shard in shards:
        try:
            if is_url(shard):
                stamp = store_of(shard, backend_args).stamp(shard)
                size, version = stamp.size, stamp.version
            else:
                status = os.stat(shard)
                size, version = status.st_size, status.st_mtime_ns
        except FileNotFoundError:
            raise DataError(f"the shard {shard} does not exist") from None
        except StorageError:
            raise
        except OSError as error:
            raise DataError(f"the shard {shard} cannot be read ({error.strerror})") from None
        digest.update(f"{os.path.basename(shard)} {size} {version}\n".encode())
    return digest.digest()


def _map(place: Path, digest: bytes) -> ShardIndex | None:
    """The index of a file, None where it is missing, torn or of other shards."""
    try:
        with place.open("rb") as file:
            raw = file.read(_HEADER.size)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return None
    if len(raw) < _HEADER.size:
        return None
    magic, version, *counts, stored = _HEADER.unpack(raw)
    members, samples, broken, without, names = counts
    sections = members * MEMBER.itemsize + (samples + broken) * SAMPLE.itemsize + names
    if (magic, version, stored) != (_MAGIC, _FORMAT_VERSION, digest):
        return None
    if size != _HEADER.size + sections:
        return None
    whole = np.memmap(place, np.uint8, "r")[_HEADER.size :]
    ends = np.cumsum([members * MEMBER.itemsize, (samples + broken) * SAMPLE.itemsize]).tolist()
    rows = whole[ends[0] : ends[1]].view(SAMPLE)
    return ShardIndex(
        whole[: ends[0]].view(MEMBER), rows[:samples], rows[samples:], without, whole[ends[1] :]
    )


@dataclass
class _Contents:
    """What was found in the shards so far."""

    members: list[np.ndarray] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)
    broken: list[np.ndarray] = field(default_factory=list)
    names: bytearray = field(default_factory=bytearray)
    without_json: int = 0


def _build(
    shards: Sequence[str],
    backend_args: Mapping[str, Any] | None,
    digest: bytes,
    places: Sequence[Path],
) -> ShardIndex:
    contents = _Contents()
    next_report = time.monotonic() + _PROGRESS_SECONDS
    for number, shard in enumerate(shards):
        _add_shard(contents, number, shard, backend_args)
        if time.monotonic() > next_report:
            logger.info("indexed %d of %d shards", number + 1, len(shards))
            next_report = time.monotonic() + _PROGRESS_SECONDS
    members = np.concatenate(contents.members)
    # In place, so that no second copy of all members is needed.
    members[:] = members[np.argsort(members["name_hash"], kind="stable")]
    samples, broken = np.concatenate(contents.samples), np.concatenate(contents.broken)
    header = _HEADER.pack(
        _MAGIC,
        _FORMAT_VERSION,
        len(members),
        len(samples),
        len(broken),
        contents.without_json,
        len(contents.names),
        digest,
    )

    def write(file: BinaryIO) -> None:
        for part in (header, members, samples, broken, contents.names):
            file.write(part)

    place, _ = write_whole(places, write, f"the shard {shards[0]}")
    logger.info(
        "indexed %d members, %d samples of %d shard(s) into %s",
        len(members),
        len(samples),
        len(shards),
        place,
    )
    index = _map(place, digest)
    if index is None:
        raise DataError(f"{place}: the index of the shards was changed while it was written")
    return index


def _add_shard(
    contents: _Contents, number: int, shard: str, backend_args: Mapping[str, Any] | None
) -> None:
    scan = partial(_scan, shard)
    try:
        if is_url(shard):
            members, samples = store_of(shard, backend_args).scan(shard, scan)
        else:
            with open(shard, "rb") as file:
                members, samples = scan(file)
    except tarfile.TarError as error:
        raise DataError(
            f"the shard {shard} is no whole, uncompressed tar file ({error}); no part of a "
            "compressed one can be reached at random"
        ) from None
    table = np.array([(h, number, start, length) for h, start, length in members], MEMBER)
    contents.members.append(table)
    good: list[tuple[Any, ...]] = []
    broken: list[tuple[Any, ...]] = []
    for sample in samples:
        if sample.json is None:
            contents.without_json += 1
            continue
        name = (sample.picture or sample.json_name).encode()
        row = (number, *sample.json, sample.ratio, len(contents.names), len(name))
        contents.names += name
        (broken if math.isinf(sample.ratio) else good).append(row)
    contents.samples.append(np.array(good, SAMPLE))
    contents.broken.append(np.array(broken, SAMPLE))


@dataclass
class _Sample:
    """Adjacent members of one key."""

    key: str
    picture: str | None = None
    json: tuple[int, int] | None = None  # start, length
    json_name: str = ""
    ratio: float = math.nan  # infinite where the sample cannot be read


def _scan(shard: str, file: BinaryIO) -> tuple[list[tuple[int, int, int]], list[_Sample]]:
    """Members (hash of name, start, length) and samples of a shard."""
    members: list[tuple[int, int, int]] = []
    samples: list[_Sample] = []
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in _regular_files(archive):
            members.append((name_hash(info.name), info.offset_data, info.size))
            key, suffix = split_key(info.name)
            if suffix != "json" and suffix not in IMAGE_SUFFIXES:
                continue
            if not samples or samples[-1].key != key:
                samples.append(_Sample(key))
            _add_member(samples[-1], info, suffix, archive)
    for sample in samples:
        if sample.picture is None:
            sample.ratio = math.inf
    return members, samples


def _add_member(
    sample: _Sample, info: tarfile.TarInfo, suffix: str, archive: tarfile.TarFile
) -> None:
    if suffix != "json":
        sample.picture = sample.picture or info.name
        return
    sample.json, sample.json_name = (info.offset_data, info.size), info.name
    content = archive.extractfile(info)
    assert content is not None  # a regular file
    try:
        row = orjson.loads(content.read())
    except orjson.JSONDecodeError:
        row = None
    sample.ratio = aspect_ratio(row) if isinstance(row, dict) else math.inf


def _regular_files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]
        if info.isreg() and not info.issparse():
            yield info
    # A damaged header looks like the end to tarfile.
    file: Any = archive.fileobj
    file.seek(archive.offset)  # type: ignore[attr-defined]
    if any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"damaged at byte {archive.offset}")  # type: ignore[attr-defined]


def split_key(name: str) -> tuple[str, str]:
    """Key and suffix of a member: ``a/b.seg.PNG`` gives ``a/b`` and ``seg.png``."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()
