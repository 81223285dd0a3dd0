"""Images and rows of the toy sets, written so that what is there is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from llmdet.errors import DataError
from llmdet.utils.whole_files import whole_file, whole_folder


@contextmanager
def new_images(out: Path, what: str) -> Iterator[Path]:
    """Give a folder to write images into, which becomes ``out/images`` in the end.

    So a set that has the folder is whole, with annotations that are written meanwhile.

    Args:
        out: of the set.
        what: the set is, for the message.

    Raises:
        DataError: the folder is there.
    """
    images = out / "images"
    if images.exists():
        raise DataError(f"{what}: {images} exists; name another folder")
    with whole_folder(images) as folder:
        yield folder


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write RGB pixels [H, W, 3] uint8 as JPEG."""
    cv2.imwrite(str(path), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of docs/data.md as JSONL; the file is there once it is whole."""
    with whole_file(path) as file:
        for row in rows:
            file.write(f"{json.dumps(row, separators=(',', ':'))}\n".encode())
