"""The index of a JSONL file as bytes: where each row begins, its line and its aspect ratio.

Layout, little-endian: a header that identifies the JSONL file it was built from (size, time of
modification, hash of its bytes), then one :data:`ROW` record for every row, the broken rows last,
then a checksum of every :data:`BLOCK_ROWS` records. A block is verified when it is first read, so
that opening an index of any size takes no time.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROW = np.dtype([("start", "<i8"), ("length", "<u4"), ("line", "<u4"), ("aspect_ratio", "<f4")])
#: Records that share a checksum: 1.3 MB, a millisecond.
BLOCK_ROWS = 1 << 16

_MAGIC = b"LLMDETIX"
_FORMAT_VERSION = 2
_FIELDS = struct.Struct("<8sIqqqqq16s")
_SUM = np.dtype("<u4")  # crc32
HEADER_SIZE = _FIELDS.size + _SUM.itemsize


@dataclass(frozen=True)
class IndexHeader:
    """What the index knows about the file it was built from."""

    rows: int
    broken_rows: int
    blank_lines: int
    size: int  # bytes
    mtime_ns: int  # 0 where the time stamp cannot be trusted
    digest: bytes  # blake2b-128 of the whole file

    @property
    def records(self) -> int:
        """How many rows have a record."""
        return self.rows + self.broken_rows

    def pack(self) -> bytes:
        """The header as it is stored."""
        fields = _FIELDS.pack(
            _MAGIC,
            _FORMAT_VERSION,
            self.rows,
            self.broken_rows,
            self.blank_lines,
            self.size,
            self.mtime_ns,
            self.digest,
        )
        return fields + sum_of(fields)

    @classmethod
    def read(cls, path: Path) -> IndexHeader | None:
        """The header of an index, or None where it is missing, torn or of another version."""
        try:
            with path.open("rb") as file:
                raw = file.read(HEADER_SIZE)
                index_size = os.fstat(file.fileno()).st_size
        except OSError:
            return None
        fields, stored_sum = raw[: _FIELDS.size], raw[_FIELDS.size :]
        if len(raw) < HEADER_SIZE or stored_sum != sum_of(fields):
            return None
        magic, version, *values = _FIELDS.unpack(fields)
        if magic != _MAGIC or version != _FORMAT_VERSION:
            return None
        header = cls(*values)
        blocks = -(-header.records // BLOCK_ROWS)
        whole = HEADER_SIZE + header.records * ROW.itemsize + blocks * _SUM.itemsize
        return header if index_size == whole else None


class IndexRecords:
    """The records of an index, mapped into memory; each block is verified when it is first read.

    Args:
        index_path: the index.
        header: its header.
    """

    def __init__(self, index_path: Path, header: IndexHeader) -> None:
        count = header.records
        self.rows = np.empty(0, ROW)  # [records]; an empty file cannot be mapped
        self._sums = np.empty(0, _SUM)
        if count:
            self.rows = np.memmap(index_path, ROW, "r", HEADER_SIZE, (count,))
            end = HEADER_SIZE + count * ROW.itemsize
            self._sums = np.memmap(index_path, _SUM, "r", end, (-(-count // BLOCK_ROWS),))
        self._verified = bytearray(len(self._sums))

    def is_whole(self, start: int, stop: int) -> bool:
        """Whether the blocks of these records are as they were written."""
        return all(
            self._verified[block] or self._verify(block)
            for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS))
        )

    def _verify(self, block: int) -> bool:
        rows = self.rows[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
        self._verified[block] = zlib.crc32(rows.tobytes()) == int(self._sums[block])
        return bool(self._verified[block])


def sum_of(content: bytes) -> bytes:
    """The checksum of a header or a block, as it is stored."""
    return zlib.crc32(content).to_bytes(_SUM.itemsize, "little")
