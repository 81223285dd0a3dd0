"""Writing of prediction files, row by row, and continuing them where a run was interrupted."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from llmdet.errors import ConfigError
from llmdet.evaluation.predictions import (
    FORMAT,
    ImagePredictions,
    PredictionHeader,
    files_of,
    iter_file,
    read_header,
)

TORN_HEADER = f'{{"format":"{FORMAT}"'.encode()
NAMED = 5  # differences that a message lists
ABSENT = "nothing"  # what a message calls a setting that one of two headers lacks


class PredictionWriter:
    """Appends one line per row; what is already in the file stays and need not be redone.

    A line that a killed program left torn at the end is cut off. Several processes write parts
    of their own, which `merge_parts` joins; all of them count as done whatever the number of
    processes that resume.

    Args:
        path: the prediction file.
        header: refused if the file exists with another one.
        rank: number of this process.
        world_size: number of processes that write.
    Raises:
        ConfigError: the file was made by another model or protocol; names what differs.
        DataError: the file exists and is no prediction file.
    """

    def __init__(
        self, path: str | Path, header: PredictionHeader, rank: int = 0, world_size: int = 1
    ) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path if world_size == 1 else _part(self.path, rank)
        self.done: set[int] = set()
        for file in files_of(self.path):
            self.done |= _prepare_resume(file, header, repair=file == written)
        self._stream = written.open("ab")
        if self._stream.tell() == 0:
            self._write_line(header.as_dict())

    def write(self, row: ImagePredictions) -> None:
        """Append one row of `prediction_row`; one that is already present is left as it is."""
        if row.image_id in self.done:
            return
        fields = ((field.name, getattr(row, field.name)) for field in dataclasses.fields(row))
        self._write_line({name: value for name, value in fields if value is not None})
        self.done.add(row.image_id)

    def close(self) -> None:
        """Flush to disk and close."""
        if not self._stream.closed:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write_line(self, values: dict[str, Any]) -> None:
        self._stream.write(_json(values) + b"\n")
        self._stream.flush()


def merge_parts(path: str | Path) -> None:
    """Join the parts that several processes wrote into one file and remove them.

    Call it on one process, after all have closed their writers. Images in more than one part
    (a sampler pads its last round) are written once.
    """
    path = Path(path)
    parts = [file for file in files_of(path) if file != path]
    if not parts:
        return
    with PredictionWriter(path, read_header(parts[0])) as writer:
        # the writer counts parts as done, which is what is to be copied here
        writer.done = {row.image_id for row in iter_file(path)}
        for part in parts:
            for row in iter_file(part):
                writer.write(row)
    for part in parts:
        part.unlink()


def header_differences(old: PredictionHeader, new: PredictionHeader) -> Iterator[str]:
    """One phrase for every setting in which two headers differ, named by its dotted path."""
    before, after = (
        _flat(orjson.loads(_json(dataclasses.asdict(header)))) for header in (old, new)
    )
    for name in dict.fromkeys((*after, *before)):
        values = before.get(name, ABSENT), after.get(name, ABSENT)
        if values[0] != values[1]:
            yield f"{name} = {_short(values[0])}, this run has {_short(values[1])}"


def _json(values: Mapping[str, Any]) -> bytes:
    # settings may be classes or paths, which only have to be told apart
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(values, default=str, option=options)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested JSON values by dotted path; lists of plain values are leaves."""
    if isinstance(value, Mapping) and value:
        parts = [(f"{prefix}.{key}" if prefix else key, inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, (Mapping, list)) for inner in value):
        parts = [(f"{prefix}[{index}]", inner) for index, inner in enumerate(value)]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, inner in parts:
        flat |= _flat(inner, name)
    return flat


def _part(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name}.part{rank}")


def _prepare_resume(path: Path, header: PredictionHeader, repair: bool) -> set[int]:
    """Image ids of an existing file; its torn last line is cut off if ``repair``."""
    with path.open("rb") as stream:
        first = stream.readline()
    if not first.endswith(b"\n") and TORN_HEADER.startswith(first[: len(TORN_HEADER)]):
        if repair:
            os.truncate(path, 0)
        return set()
    differences = list(header_differences(read_header(path), header))
    if differences:
        named = "; ".join(differences[:NAMED])
        others = f" (and {len(differences) - NAMED} more)" if len(differences) > NAMED else ""
        raise ConfigError(
            f"{path} holds predictions of another protocol: {named}{others}. Choose another --out "
            "or remove the file."
        )
    if repair:
        _cut_torn_line(path)
    return {row.image_id for row in iter_file(path)}


def _cut_torn_line(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        for line in stream:
            if not line.endswith(b"\n"):
                size -= len(line)
    os.truncate(path, size)


def _short(value: Any) -> str:
    text = value if value is ABSENT else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
