"""Rows that a builder of conversations writes, as JSONL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError
from llmdet.utils.whole_files import whole_file


def write_rows(rows: Iterable[Mapping[str, Any]], out: Path, ledger: Ledger) -> int:
    """Write rows of docs/data.md.

    Args:
        rows: one after another.
        out: the file, which appears only when all of it was written.
        ledger: has counted by then what rows were not made of.

    Returns:
        Their number.

    Raises:
        DataError: there is no row; it says why with all causes.
    """
    count = 0
    with whole_file(out) as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
        if not count:
            causes = ledger.report() or "the annotations hold nothing that this task asks about"
            raise DataError(f"{out}: no row is left to write:\n{causes}")
    return count
