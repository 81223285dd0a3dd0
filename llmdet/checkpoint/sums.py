"""The checksums that PyTorch writes into a checkpoint, and reads without looking at them."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path

from llmdet.errors import CheckpointError

#: What zipfile and PyTorch raise over a file of which some bytes are wrong.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)
_ZIP, _TAR = b"PK\x03\x04", b"ustar"
_TAR_MAGIC = 257  # where it stands


def check_sums(path: Path) -> None:
    """Whether every record of a file has the sum that was saved with it.

    Files of PyTorch before 1.6 are bare pickles or tar files, and have none.

    Raises:
        CheckpointError: a record has another sum, or the file is no checkpoint at all.
    """
    with path.open("rb") as file:
        begin = file.read(_TAR_MAGIC + len(_TAR))
    if begin[:1] == pickle.PROTO or begin[_TAR_MAGIC:] == _TAR:
        return
    if not begin.startswith(_ZIP):
        raise CheckpointError(
            f"Checkpoint '{path}' is damaged or no checkpoint: it is neither a zip file nor a "
            "pickle, which PyTorch writes"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            folders = (info.filename for info in archive.infolist() if info.external_attr & 0x10)
            wrong = archive.testzip() or next(folders, None)  # PyTorch reads nothing from a folder
    except DAMAGE as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"Checkpoint '{path}' is damaged or incomplete: {reason}") from error
    if wrong is not None:
        raise CheckpointError(
            f"Checkpoint '{path}' is damaged: its record '{wrong}' has another checksum or mark; "
            "fetch or copy it again"
        )
