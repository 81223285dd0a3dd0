"""Folders of images that the toy sets are written to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from llmdet.errors import DataError


def begin_images(out: Path, what: str) -> Path:
    """Make ``out/images``.

    Args:
        out: of the set.
        what: the set is, for the message.

    Raises:
        DataError: the folder holds other images.
    """
    images = out / "images"
    if images.exists():
        raise DataError(f"{what}: {images} exists; name another folder")
    images.mkdir(parents=True)
    return images


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write RGB pixels [H, W, 3] uint8 as JPEG."""
    cv2.imwrite(str(path), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
