"""Finished items of a step, kept on disk so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError
from llmdet.utils.whole_files import whole_file

_SHOWN_CHARACTERS = 80
_REMEDY = "Repeat the command that began it, or remove the file to begin again."


@dataclass(frozen=True)
class Outcome:
    """What became of one item."""

    row: dict[str, Any] | None  # None where the item is broken
    problem: str = ""  # why it is broken, with its place
    notes: tuple[tuple[str, str], ...] = ()  # (cause, place) for the ledger


class Journal:
    """A JSONL file: what decides its rows in the first line, then one :class:`Outcome` a line.

    Args:
        path: made where it is missing, else continued; a line cut short is removed.
        decided_by: everything on which the rows depend, as JSON.
        remedy: what to do where that differs, a sentence.

    Raises:
        ConfigError: the file was begun with something else; the sentence names it.
    """

    def __init__(self, path: Path, decided_by: Mapping[str, Any], remedy: str = _REMEDY) -> None:
        self.path = path
        self.done = 0
        self.problems: list[str] = []
        header = orjson.dumps({"decided_by": decided_by}, option=orjson.OPT_APPEND_NEWLINE)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            first = file.readline()
            if not first.endswith(b"\n"):  # new, or cut short in its first line
                file.truncate(0)
                file.write(header)
                return
            _compare(path, first, orjson.loads(header)["decided_by"], remedy)
            end = file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.done += 1
                outcome = orjson.loads(line)
                if outcome["row"] is None:
                    self.problems.append(outcome["problem"])
                end += len(line)
            file.truncate(end)

    def append(self, outcomes: Iterable[Outcome]) -> None:
        """Add outcomes and wait until they are on the disk: what was paid for must survive."""
        with self.path.open("ab") as file:
            for outcome in outcomes:
                file.write(orjson.dumps(asdict(outcome), option=orjson.OPT_APPEND_NEWLINE))
                self.done += 1
            file.flush()
            os.fsync(file.fileno())

    def outcomes(self) -> Iterator[Outcome]:
        """All finished items, of this and earlier runs."""
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                yield Outcome(**orjson.loads(line))

    def finish(self, out: Path, ledger: Ledger) -> int:
        """Write the rows to their place, count the notes of all runs, and remove the journal.

        Returns:
            The number of rows.
        """
        count = 0
        with whole_file(out) as rows:
            for outcome in self.outcomes():
                for cause, where in outcome.notes:
                    ledger.note(cause, where)
                if outcome.row is not None:
                    rows.write(orjson.dumps(outcome.row, option=orjson.OPT_APPEND_NEWLINE))
                    count += 1
        self.path.unlink()
        return count

    def reject_problems(self, ledger: Ledger) -> None:
        """Count the broken items of earlier runs against the limit of this one."""
        for problem in self.problems:
            ledger.reject(DataError(problem))


def _compare(path: Path, first: bytes, now: Mapping[str, Any], remedy: str) -> None:
    try:
        then = orjson.loads(first)["decided_by"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise ConfigError(f"{path} was begun by another version of LLMDet. {remedy}") from None
    missing = "nothing"
    differences = [
        f"{key} {_shown(then.get(key, missing))} (now {_shown(now.get(key, missing))})"
        for key in {**then, **now}
        if then.get(key, missing) != now.get(key, missing)
    ]
    if differences:
        raise ConfigError(f"{path} was begun with {' and '.join(differences)}. {remedy}")


def _shown(value: Any) -> str:
    text = repr(value)
    half = _SHOWN_CHARACTERS // 2
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:half]} ... {text[-half:]}"
