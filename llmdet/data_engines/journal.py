"""Finished items of a flow, kept on disk so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError
from llmdet.utils.whole_files import whole_file

_SHOWN_CHARACTERS = 80
_REMEDY = "Repeat the command that began it, or remove the file to begin again."
_MISSING = -1


@dataclass(frozen=True)
class Outcome:
    """What became of one item."""

    row: dict[str, Any] | None  # None where the item is broken, or left out for what notes say
    problem: str = ""  # why it is broken, with its place
    notes: tuple[tuple[str, str], ...] = ()  # (cause, place) for the ledger
    aside: bool = False  # the row belongs into a file beside that of the others


class Journal:
    """A JSONL file: what decides its rows in the first line, then one numbered outcome a line.

    Outcomes are appended as items finish; they are read in the order of the items.

    Args:
        path: made where it is missing, else continued; a line cut short is removed.
        decided_by: everything on which the rows depend, as JSON.
        remedy: what to do where that differs, a sentence.

    Attributes:
        done: the number of finished items.
        problems: what was wrong with the broken ones of earlier runs.

    Raises:
        ConfigError: the file was begun with something else; the sentence names it.
    """

    def __init__(self, path: Path, decided_by: Mapping[str, Any], remedy: str = _REMEDY) -> None:
        self.path = path
        self.done = 0
        self.problems: list[str] = []
        self._places = array("q")  # number of an item -> where its line begins
        header = orjson.dumps({"decided_by": decided_by}, option=orjson.OPT_APPEND_NEWLINE)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            first = file.readline()
            if not first.endswith(b"\n"):  # new, or cut short in its first line
                file.truncate(0)
                file.write(header)
                return
            check_same(path, first, orjson.loads(header)["decided_by"], remedy)
            end = len(first)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._remember(line, end, remedy)
                end += len(line)
            file.truncate(end)

    def _remember(self, line: bytes, place: int, remedy: str) -> None:
        outcome = orjson.loads(line)
        if "number" not in outcome:
            raise ConfigError(f"{self.path} was begun by another version of LLMDet. {remedy}")
        self._place(outcome["number"], place)
        if outcome["problem"]:
            self.problems.append(outcome["problem"])

    def _place(self, number: int, place: int) -> None:
        if number >= len(self._places):
            self._places.extend([_MISSING] * (number + 1 - len(self._places)))
        self._places[number] = place
        self.done += 1

    def holds(self, number: int) -> bool:
        """Whether an item is finished."""
        return number < len(self._places) and self._places[number] != _MISSING

    def append(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Add numbered outcomes and wait for the disk: what was paid for must survive."""
        with self.path.open("ab") as file:
            for number, outcome in outcomes:
                place = file.tell()
                line = {"number": number, **asdict(outcome)}
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
                self._place(number, place)
            file.flush()
            os.fsync(file.fileno())

    def outcomes(self) -> Iterator[Outcome]:
        """All finished items of this and earlier runs, in the order of their numbers."""
        with self.path.open("rb") as file:
            for place in self._places:
                if place != _MISSING:
                    file.seek(place)
                    line = orjson.loads(file.readline())
                    del line["number"]
                    yield Outcome(**line)

    def finish(
        self,
        out: Path,
        ledger: Ledger,
        *,
        aside: Path | None = None,
        rows_of: Callable[[dict[str, Any]], Iterable[dict[str, Any]]] = lambda row: (row,),
    ) -> int:
        """Write the rows to their place, count the notes of all runs, and remove the journal.

        Args:
            out: the file of the rows.
            ledger: counts the notes.
            aside: the file of rows that are marked so, if there are to be any.
            rows_of: what is written of an outcome's row.

        Returns:
            The number of rows in ``out``.
        """
        count = 0
        with whole_file(out) as rows, _whole_file_or_none(aside) as aside_rows:
            for outcome in self.outcomes():
                for cause, where in outcome.notes:
                    ledger.note(cause, where)
                file = aside_rows if outcome.aside and aside_rows else rows
                for row in rows_of(outcome.row) if outcome.row is not None else ():
                    file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                    count += file is rows
        self.path.unlink()
        return count

    def reject_problems(self, ledger: Ledger) -> None:
        """Count the broken items of earlier runs against the limit of this one."""
        for problem in self.problems:
            ledger.reject(DataError(problem))


def _whole_file_or_none(path: Path | None) -> AbstractContextManager[BinaryIO | None]:
    return nullcontext() if path is None else whole_file(path)


def check_same(path: Path, first: bytes, now: Mapping[str, Any], remedy: str = _REMEDY) -> None:
    """Refuse to continue what was begun with other settings.

    Args:
        path: the file, for the message.
        first: its line of settings, as it is written.
        now: the settings of today.
        remedy: a sentence.

    Raises:
        ConfigError: they differ; the sentence names what.
    """
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
