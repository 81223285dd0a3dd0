"""Reading of annotation and prediction files: JSON, JSONL and npz, gzipped or not."""

import gzip
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"


def read_bytes(path: str | Path) -> bytes:
    """Content of a file, unpacked if it is gzipped (recognised by content, not by name).

    Raises:
        DataError: the file is missing or its gzip stream is damaged.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return unpacked(content, path)


def unpacked(content: bytes, path: str | Path) -> bytes:
    """Content of a file, unpacked if it is gzipped.

    Raises:
        DataError: its gzip stream is damaged; names the path.
    """
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}); copy it again") from error


def read_text(path: str | Path) -> str:
    """Content of a UTF-8 text file, gzipped or not, with or without a byte order mark.

    Raises:
        DataError: the file is missing or is not UTF-8; the message names the line.
    """
    return decoded(read_bytes(path), path)


def decoded(content: bytes, path: str | Path) -> str:
    """Content of a UTF-8 text file as text; raises as :func:`read_text`."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line} is not UTF-8 (byte {content[error.start]:#04x}): convert the file, "
            "for example with iconv -f LATIN1 -t UTF-8"
        ) from None


def read_json(path: str | Path) -> Any:
    """Parsed content of a ``.json`` or ``.json.gz`` file.

    Raises:
        DataError: the file is missing or is not JSON; the message names line and column.
    """
    return parse_json(read_text(path), path)


def parse_json(text: str, path: str | Path) -> Any:
    """Value of a JSON text; raises as :func:`read_json`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def read_jsonl(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Line number (from 1) and parsed value of every non-blank line.

    Raises:
        DataError: the file is missing or a line is not JSON; the message names the line.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number} is not valid JSON: {error}") from error


def read_npz(path: str | Path, *names: str) -> tuple[np.ndarray, ...]:
    """The named arrays of an npz file; pickled objects inside are refused.

    Raises:
        DataError: the file is unreadable or lacks one of the arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise DataError(
                    f"{path} has no array {', '.join(missing)}; it holds {', '.join(archive.files)}"
                )
            return tuple(archive[name] for name in names)
    except DataError:
        raise
    except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def require(record: dict[str, Any], field: str, where: str) -> Any:
    """``record[field]``, or a DataError that names the record and the missing field."""
    if field not in record:
        raise DataError(f"{where} has no field {field!r}")
    return record[field]
