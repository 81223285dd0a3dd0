"""Pictures and rows in tar shards (webdataset's layout), in any order.

Beside a JSONL file, shards hold pictures by name. Alone, they hold samples: a picture and a json
of the same key each (``000017.jpg``, ``000017.json``), the json being a row as of JSONL.
A picture's address is that of its shard and its name, as if the shard were a folder.
"""

from __future__ import annotations

import logging
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import orjson

from llmdet.datasets.storage.objects import is_url, store_of
from llmdet.datasets.storage.shard_index import ShardIndex, open_index, split_key
from llmdet.errors import DataError

logger = logging.getLogger(__name__)

_TAR = ".tar"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
#: Shard -> the set that it was opened with in this process, so that a picture's address suffices.
_opened: dict[str, TarShards] = {}


def is_shards(path: str) -> bool:
    """Whether a path names tar shards: ``a.tar`` or ``a-{000..099}.tar``."""
    return path.rstrip("/").endswith(_TAR)


def split_member(path: str) -> tuple[str, str] | None:
    """Shard and member of a picture's address, None for a file or an object of its own."""
    shard, found, member = path.partition(f"{_TAR}/")
    shard += _TAR
    return (
        (shard, member) if found and member and (is_url(path) or not os.path.isdir(shard)) else None
    )


def expand_shards(pattern: str) -> list[str]:
    """The shards that a pattern stands for: ``a-{08..10}.tar`` are 08, 09 and 10."""
    pieces = _RANGE.split(pattern.rstrip("/"))
    choices = []
    for first, last in zip(pieces[1::3], pieces[2::3], strict=True):
        if int(last) < int(first):
            raise DataError(f"{pattern}: the range {{{first}..{last}}} is empty")
        numbers = range(int(first), int(last) + 1)
        choices.append([str(number).zfill(len(first)) for number in numbers])
    texts = pieces[0::3]
    return [
        texts[0] + "".join(number + text for number, text in zip(chosen, texts[1:], strict=True))
        for chosen in product(*choices)
    ]


class TarShards:
    """Members of tar shards by name.

    Args:
        pattern: of files or URLs, see :func:`expand_shards`.
        backend_args: how URLs are read.

    Raises:
        DataError: a shard is missing or is no whole, uncompressed tar.
    """

    def __init__(self, pattern: str, backend_args: Mapping[str, Any] | None = None) -> None:
        self.pattern = pattern
        self.backend_args = backend_args
        self._open()

    def _open(self) -> None:
        self.shards = expand_shards(self.pattern)
        self.index: ShardIndex = open_index(self.shards, self.backend_args)
        self._numbers = {shard: number for number, shard in enumerate(self.shards)}
        _opened.update(dict.fromkeys(self.shards, self))

    def address(self, name: str, where: str) -> str:
        """The address of a picture.

        Args:
            name: of a member.
            where: place in the annotations, for messages.

        Raises:
            DataError: no shard, or more than one, has the name.
        """
        found = [self.shards[int(member["shard"])] for member in self.index.find(name)]
        if len(found) != 1:
            problem = f"{self.pattern} has no picture {name}"
            if found:
                problem = f"{found[0]} and {found[1]} both hold {name}: name the shard before it"
            raise DataError(f"{where}: {problem}")
        return f"{found[0]}/{name}"

    def read(self, shard: str, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            FileNotFoundError: the shard has no such member.
            DataError: the shard changed since it was indexed.
            StorageError: its server does not answer.
        """
        number = self._numbers[shard]
        for member in self.index.find(name):
            if member["shard"] == number:
                return self.read_bytes(number, int(member["start"]), int(member["length"]), name)
        raise FileNotFoundError(f"{shard}/{name}")

    def read_bytes(self, number: int, start: int, length: int, name: str) -> bytes:
        """The content of a member at a place; its header, which lies before it, must agree.

        Args:
            number: of the shard.
            start, length: of the content.
            name: what the member's name begins with.

        Raises:
            DataError, StorageError: as :meth:`read`.
        """
        shard, lead = self.shards[number], tarfile.BLOCKSIZE
        if is_url(shard):
            store = store_of(shard, self.backend_args)
            raw = store.get_range(shard, start - lead, lead + length, keep=True)
        else:
            with open(shard, "rb") as file:
                raw = os.pread(file.fileno(), lead + length, start - lead)
        try:
            header = tarfile.TarInfo.frombuf(raw[:lead], "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            header = tarfile.TarInfo()
        # Long names and other letters stand whole in a header before this one.
        spellings = (name, name.encode("ascii", "replace").decode())
        agrees = any(header.name.startswith(spelling[:100]) for spelling in spellings)
        if len(raw) != lead + length or header.size != length or not agrees:
            raise DataError(
                f"the shard {shard} changed since it was indexed ({name} is no longer at byte "
                f"{start}); start again"
            )
        return raw[lead:]

    def __getstate__(self) -> dict[str, Any]:
        return {"pattern": self.pattern, "backend_args": self.backend_args}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


class TarRows(Sequence[dict[str, Any]]):
    """Rows of tar shards, one for each json with a picture; what :class:`IndexedJsonl` is to JSONL.

    Args:
        pattern, backend_args: as of :class:`TarShards`.
        max_bad_rows: how many samples whose json is no object, or has no picture, are skipped.

    Raises:
        DataError: as :class:`TarShards`; or more samples are broken.
    """

    def __init__(
        self, pattern: str, backend_args: Mapping[str, Any] | None = None, *, max_bad_rows: int = 0
    ) -> None:
        self.shards = TarShards(pattern, backend_args)
        broken = self.shards.index.broken
        self.bad_locations = tuple(self._address(sample) for sample in broken)
        if len(broken) > max_bad_rows:
            raise DataError(
                f"{self.bad_locations[0]}: the json is no object or has no picture; {len(broken)} "
                f"sample(s) are broken and max_bad_rows={max_bad_rows}"
            )
        if self.shards.index.without_json:
            logger.warning(
                "%s: %d picture(s) have no json and are left out",
                pattern,
                self.shards.index.without_json,
            )

    def __len__(self) -> int:
        return len(self.shards.index.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        """The parsed row; its `filename` is the name of the picture of its key."""
        sample = self.shards.index.samples[index]
        name = self.shards.index.name(sample)
        content = self.shards.read_bytes(
            int(sample["shard"]), int(sample["start"]), int(sample["length"]), split_key(name)[0]
        )
        try:
            row = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise DataError(f"{self.location(index)}: its json is damaged ({error})") from None
        return {**row, "filename": name}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def location(self, index: int) -> str:
        """Shard and picture of a row, for messages."""
        return self._address(self.shards.index.samples[index])

    def folder(self, index: int) -> str:
        """What a row's `filename` lies in."""
        return self.shards.shards[int(self.shards.index.samples[index]["shard"])]

    @property
    def aspect_ratios(self) -> np.ndarray:
        """[len] float32 width / height of every row, NaN where the row lacks either; read-only."""
        return self.shards.index.samples["aspect_ratio"]

    def _address(self, sample: np.void) -> str:
        return f"{self.shards.shards[int(sample['shard'])]}/{self.shards.index.name(sample)}"


def read_member(shard: str, name: str, backend_args: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a member, by the index that its shard was opened with; see TarShards.read."""
    if shard not in _opened:
        TarShards(shard, backend_args)
    return _opened[shard].read(shard, name)
