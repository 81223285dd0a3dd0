"""Checkpoints that several processes write together: a folder of safetensors.

Every process writes its part of each tensor through :mod:`torch.distributed.checkpoint`; any number
of processes reads them back. Nothing in such a folder is a program: PyTorch's own format keeps
its table of contents as a pickle, safetensors keep it as JSON.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmdet.errors import CheckpointError

#: File with the sizes and sums of all others; written last.
MANIFEST = "shards.json"
#: File of what is no tensor of a model or an optimizer.
STATE = "state.pth"
#: What names of tensors begin with.
WEIGHTS, OPTIMIZER = "weights.", "optimizer."
_CHUNK = 1 << 24


def is_sharded(path: str | Path) -> bool:
    """Whether ``path`` is a folder that several processes wrote."""
    return (Path(path) / MANIFEST).is_file()


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write this process's part of each tensor into ``folder``; all processes call this together.

    Args:
        folder: exists.
        tensors: spread over the processes, or equal in all of them; the same names everywhere.

    Raises:
        OSError: one of the processes could not write; all raise it.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        with _quiet():
            dcp.save(
                dict(tensors),
                storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True),
                no_dist=not torch.distributed.is_initialized(),
            )
    except CheckpointException as error:
        for cause, _ in error.failures.values():
            if isinstance(cause, OSError):
                raise cause from error
        raise


def seal(folder: Path) -> None:
    """Write down which files a folder has, and their sums."""
    files = {
        path.name: {"bytes": path.stat().st_size, "crc32": _sum(path)}
        for path in sorted(folder.iterdir())
    }
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1))


def check_shards(folder: str | Path) -> None:
    """Raise a CheckpointError unless every file of a folder is as it was written."""
    folder = Path(folder)
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        for name, entry in files.items():
            path = folder / Path(name).name
            if path.stat().st_size != entry["bytes"] or _sum(path) != entry["crc32"]:
                raise CheckpointError(
                    f"Checkpoint '{folder}' is damaged: '{name}' is not as it was written"
                )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"Checkpoint '{folder}' is damaged or incomplete: {error}") from error


def read_shards(folder: str | Path, prefix: str = WEIGHTS) -> dict[str, Tensor]:
    """Whole tensors in host memory, those whose names begin with ``prefix``, without it.

    Raises:
        CheckpointError: a part of one is missing.
    """
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in _entries(folder).items()
        if name.startswith(prefix)
    }
    fill_from_shards(folder, tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def sizes_in_shards(folder: str | Path, prefix: str) -> dict[str, torch.Size]:
    """Sizes of the whole tensors whose names begin with ``prefix``."""
    entries = _entries(folder)
    return {name: entry.size for name, entry in entries.items() if name.startswith(prefix)}


def fill_from_shards(folder: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Read into ``tensors``, in place; of one that is spread, this process's part.

    Args:
        folder: written by any number of processes.
        tensors: by their names with prefixes.

    Raises:
        CheckpointError: the folder lacks one of them, or has it in another size.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    if not tensors:
        return
    try:
        with _quiet():
            reader = dcp.HuggingFaceStorageReader(str(folder))
            dcp.load(dict(tensors), storage_reader=reader, no_dist=True)
    except (CheckpointException, RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(f"'{folder}' cannot be read: {error}") from error


def _entries(folder: str | Path) -> dict[str, Any]:
    import torch.distributed.checkpoint as dcp

    return dcp.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata


def _sum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total = zlib.crc32(chunk, total)
    return total


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings that a single process saves and loads alone: that is what is wanted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
