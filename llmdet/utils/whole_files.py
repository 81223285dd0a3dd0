"""Files that stand under their name only when all of them has been written."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

#: End of the name of a file or folder that is not whole yet.
TEMPORARY = ".tmp"


@contextmanager
def written_whole(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a file name beside ``path`` to write to, which becomes ``path`` in the end.

    Where writing fails nothing is left behind, and what had the name before still has it. Several
    processes may write the same file: the last one wins, whole.

    Args:
        path: in a folder that is there.
        durable: only once all is on the disk, so that the new file outlives a power failure.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{time.time_ns()}{TEMPORARY}")
    try:
        yield temporary
        if durable:
            flush(temporary)
        os.replace(temporary, path)
        if durable:
            flush(path.parent)  # the new name itself
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """As :func:`written_whole`, but give the file itself, open for writing and reading.

    Its folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary, temporary.open("w+b") as file:
        yield file


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside ``path`` to write into, which becomes ``path`` in the end.

    What an interrupted attempt left is removed, and so is in the end what had the name before.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(path, ignore_errors=True)
    temporary.rename(path)


def flush(path: Path) -> None:
    """Wait until a file or a folder's names are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
