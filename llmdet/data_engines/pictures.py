"""Pictures without annotations, that an engine begins with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llmdet.data_engines.identities import hash_of
from llmdet.errors import DataError


@dataclass(frozen=True)
class PictureSet:
    """Pictures, and the folder that holds all of them.

    Attributes:
        folder: the innermost folder that they share.
        filenames: their paths below it, with ``/``.
    """

    folder: Path
    filenames: tuple[str, ...]

    @classmethod
    def of(cls, paths: list[Path]) -> PictureSet:
        """Those of a list; one that is named twice counts once."""
        files = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
        folder = Path(os.path.commonpath([file.parent for file in files]))
        return cls(folder, tuple(file.relative_to(folder).as_posix() for file in files))

    @property
    def identity(self) -> str:
        """Their number, folder and names, for a journal."""
        listed = hash_of("\n".join(self.filenames).encode())
        return f"{len(self.filenames)} in {self.folder}, of hash {listed}"

    def check_stems(self) -> None:
        """Raise a DataError where two pictures differ in their suffix alone.

        Formats with a label file for each picture could not tell them apart.
        """
        owners: dict[str, str] = {}
        for filename in self.filenames:
            stem = str(PurePosixPath(filename).with_suffix(""))
            if stem in owners:
                raise DataError(
                    f"{owners[stem]} and {filename} would share a label file: rename one."
                )
            owners[stem] = filename
