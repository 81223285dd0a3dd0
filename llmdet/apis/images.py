"""What users point at (files, folders, lists, arrays, PIL images) as pictures to look at."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llmdet.datasets.pictures import open_picture, upright_rgb
from llmdet.errors import ConfigError, DataError
from llmdet.utils.files import read_text

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES: tuple[str, ...] = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".gif", ".avif", ".jp2"),
)
_LIST_SUFFIXES = (".txt", ".lst", ".list")
CHANNELS = ("rgb", "bgr")

ImageSource = str | Path | np.ndarray | Image.Image
#: A file, or [H, W, 3] uint8 RGB.
Source = Path | np.ndarray


def is_entry(images: Any) -> bool:
    """Whether this stands for itself, and is no list or stream of images."""
    return isinstance(images, (str, Path, np.ndarray, Image.Image)) or not isinstance(
        images, Iterable
    )


def is_single(images: Any) -> bool:
    """Whether this is one image, and no folder, list or stream of them."""
    if isinstance(images, (str, Path)):
        path = Path(images).expanduser()
        return not path.is_dir() and path.suffix.lower() not in _LIST_SUFFIXES
    return is_entry(images)


def expand(entry: Any, channels: str = "rgb") -> Iterator[Source]:
    """The images that one entry stands for; files are not opened.

    Args:
        entry: an image file; a folder (its images, sorted, without subfolders); a text file that
            lists image files, one a line; an array; or a PIL image.
        channels: the order of an array's channels, "rgb" or "bgr".

    Raises:
        DataError: a path does not exist or is a URL, a list is no text, or an array is no image.
    """
    if isinstance(entry, np.ndarray):
        yield read_array(entry, channels)
    elif isinstance(entry, Image.Image):
        yield np.asarray(upright_rgb(entry, "that was given"))
    elif isinstance(entry, (str, Path)):
        yield from _expand_path(entry)
    else:
        raise DataError(
            f"An image is a path, a numpy array or a PIL image, not a {type(entry).__name__}."
        )


def read_array(array: np.ndarray, channels: str = "rgb") -> np.ndarray:
    """[H, W, 3] uint8 RGB of an array: grey is made colour, transparency white, 16 bits 8.

    Args:
        array: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] uint8, or [H, W] uint16.
        channels: the order of its channels, "rgb" or "bgr" (OpenCV's).

    Raises:
        DataError: it has another shape or type.
    """
    if channels not in CHANNELS:
        raise ConfigError(f"channels is {channels!r}: choose one of {', '.join(CHANNELS)}.")
    shape = f"{list(array.shape)} {array.dtype}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colour = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8
    if not (grey or colour):
        raise DataError(
            f"An image array is [H, W, 3] uint8 in {channels.upper()} order (or grey, or with "
            f"alpha), not {shape}."
        )
    if array.size == 0:
        raise DataError(f"An image array of shape {shape} has no pixel.")
    if colour and channels == "bgr":
        array = array[..., [2, 1, 0, *range(3, array.shape[2])]]
    if colour and array.shape[2] == 3:
        return array
    return np.asarray(upright_rgb(Image.fromarray(np.ascontiguousarray(array))))


def _expand_path(entry: str | Path) -> Iterator[Path]:
    if "://" in str(entry):
        raise DataError(f"{entry} is a URL; nothing is downloaded here: save the image first.")
    path = Path(entry).expanduser()
    if path.is_dir():
        yield from _images_of(path)
    elif not path.is_file():
        raise DataError(f"There is no file or folder {path}: check the path of the image.")
    elif path.suffix.lower() in _LIST_SUFFIXES:
        yield from _read_list(path)
    else:
        yield path


def _images_of(folder: Path) -> list[Path]:
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file() and file.name[0] != ".")
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read ({error.strerror}).") from None
    found = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise DataError(f"The folder {folder} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    if others := sorted({file.suffix.lower() or file.name for file in files} - set(IMAGE_SUFFIXES)):
        left_out = len(files) - len(found)
        logger.info("%s: %d files are left out (%s)", folder, left_out, ", ".join(others[:5]))
    return found


def _read_list(path: Path) -> Iterator[Path]:
    """Read image paths, which are relative to here or else to the folder of the list."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        entry = line.strip()
        if not entry:
            continue
        if "://" in entry:
            raise DataError(f"{path}:{number} is a URL; nothing is downloaded: save it first.")
        here = Path(entry).expanduser()
        image = here if here.is_file() else path.parent / here
        if not image.is_file():
            raise DataError(f"{path}:{number} names {entry}, and there is no such file.")
        yield image


def fault_of(source: Source) -> DataError | None:
    """What is wrong with a file whose head cannot be read; None for all others."""
    try:
        if isinstance(source, Path):
            with open_picture(source):
                pass
    except DataError as error:
        return error
    return None
