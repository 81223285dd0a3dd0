"""What users point at (a file, a folder, a list, arrays) as a list of images with names."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from llmdet.datasets.pictures import open_picture, upright_rgb
from llmdet.errors import DataError
from llmdet.utils.files import read_text

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_LIST_SUFFIXES = (".txt", ".lst", ".list")

ImageSource = str | Path | np.ndarray | Image.Image


@dataclass(frozen=True)
class InputImage:
    """One image and the name under which its results are saved."""

    source: Path | np.ndarray  # a file, or [H, W, 3] uint8 BGR
    name: str  # unique among the images of one call
    suffix: str  # of the picture with boxes

    def __str__(self) -> str:
        return str(self.source) if isinstance(self.source, Path) else f"array {self.name}"


def collect_images(
    inputs: ImageSource | Sequence[ImageSource], first_array: int = 0
) -> list[InputImage]:
    """List the images that ``inputs`` stands for; files are not opened.

    Args:
        inputs: An image file; a folder (its images, sorted, without subfolders); a text file
            that lists image files, one a line; a BGR array; a PIL image; or a sequence of any of
            these.
        first_array: The number from which arrays, which have no name, are counted.

    Raises:
        DataError: A path does not exist or is a URL; a list is no text; an array is no BGR image;
            nothing was found.
    """
    single = isinstance(inputs, (str, Path, np.ndarray, Image.Image))
    given = cast(Sequence[ImageSource], [inputs] if single else inputs)
    sources = [source for entry in given for source in _expand(entry)]
    if not sources:
        raise DataError("There is no image to look at: the list of inputs is empty.")
    for source in sources:
        if isinstance(source, np.ndarray):
            _check(source)
    files = [source for source in sources if isinstance(source, Path)]
    named, numbered = iter(output_names(files)), itertools.count(first_array)
    names = [next(named) if isinstance(s, Path) else f"{next(numbered):08d}" for s in sources]
    return [
        InputImage(source, name, source.suffix.lower() if isinstance(source, Path) else ".png")
        for source, name in zip(sources, _numbered(names), strict=True)
    ]


def output_names(paths: Sequence[Path]) -> list[str]:
    """Return a distinct name for each file.

    That is its stem; where stems are equal, with the folders that tell the files apart in front
    (``left_cat``, ``right_cat``) or the suffix behind (``cat_jpg``, ``cat_png``).
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.stem, []).append(path)
    names = []
    for path in paths:
        namesakes = groups[path.stem]
        common = os.path.commonpath([os.path.abspath(other.parent) for other in namesakes])
        folders = Path(os.path.abspath(path.parent)).relative_to(common).parts
        name = "_".join([*folders, path.stem])
        if sum(other.parent == path.parent for other in namesakes) > 1:
            name = f"{name}_{path.suffix.lstrip('.')}"
        names.append(name)
    return names


def _numbered(names: Sequence[str]) -> list[str]:
    """Tell apart what is still equal, such as one file given twice."""
    result: list[str] = []
    taken: set[str] = set()
    for name in names:
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique)
        result.append(unique)
    return result


def _expand(entry: ImageSource) -> list[Path | np.ndarray]:
    if isinstance(entry, np.ndarray):
        return [entry]
    if isinstance(entry, Image.Image):
        return [np.asarray(upright_rgb(entry, "that was given"))[..., ::-1]]
    if not isinstance(entry, (str, Path)):
        raise DataError(
            f"An image is a path, a numpy array or a PIL image, not a {type(entry).__name__}."
        )
    if "://" in str(entry):
        raise DataError(f"{entry} is a URL; nothing is downloaded here: save the image first.")
    path = Path(entry).expanduser()
    if path.is_dir():
        return list(_images_of(path))
    if not path.is_file():
        raise DataError(f"There is no file or folder {path}: check the path of the image.")
    if path.suffix.lower() in _LIST_SUFFIXES:
        return list(_read_list(path))
    return [path]


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


def _read_list(path: Path) -> Iterable[Path]:
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


def readable_images(
    images: Sequence[InputImage],
) -> tuple[list[InputImage], list[DataError]]:
    """Those images whose heads can be read, and what is wrong with the others."""
    readable, faults = [], []
    for image in images:
        try:
            if isinstance(image.source, Path):
                with open_picture(image.source):
                    pass
            readable.append(image)
        except DataError as error:
            faults.append(error)
    return readable, faults


def _check(source: np.ndarray) -> None:
    if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8:
        raise DataError(
            f"An image array is [H, W, 3] uint8 in BGR order, not {list(source.shape)} "
            f"{source.dtype}."
        )
    if source.size == 0:
        raise DataError(f"An image array of shape {list(source.shape)} has no pixel.")
