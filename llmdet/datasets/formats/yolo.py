"""YOLO: one text file per image with ``class cx cy w h`` lines in fractions of the image."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdet.datasets.formats.rows import numbered_categories
from llmdet.datasets.formats.samples import (
    Instance,
    ReadOptions,
    Sample,
    Source,
    class_names,
    image_size,
)
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError
from llmdet.utils.files import read_text

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt")


def read_yolo(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open a YOLO folder, or its ``data.yaml``.

    Pictures are in ``options.images``, else where ``data.yaml`` puts ``options.split`` (``train``
    if not given; a folder, or a text file that lists pictures), else in ``images/SPLIT`` or
    ``images``. The label file of a picture has the same path with ``labels`` for ``images``; a
    picture without one is a negative example. Lines with more than five numbers are polygons and
    give their hull.

    Raises:
        DataError: No pictures or names are found, or a line is broken (file and line are named).
    """
    root = path.parent if path.suffix in (".yaml", ".yml") else path
    settings = _settings(path, root)
    names = _names(root, settings, options)
    listing = settings.get(options.split or "train")
    if options.images is None and str(listing).endswith(".txt"):
        images = root / "images"
        files = _listed(root / str(listing), images)
    else:
        images = _image_folder(root, settings, options)
        files = sorted(file for file in images.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"{images}: there are no pictures")
    samples = _samples(files, images, names, ledger)
    return Source(samples, len(files), numbered_categories(names))


def _settings(path: Path, root: Path) -> dict[str, Any]:
    import yaml

    file = path if path != root else root / "data.yaml"
    if not file.exists():
        if path != root:
            raise DataError(f"{file}: the file does not exist")
        return {}
    try:
        settings = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise DataError(f"{file}: not valid YAML ({error})") from None
    if not isinstance(settings, dict):
        raise DataError(f"{file}: 'names', 'train' ... are expected at the top level")
    return settings


def _names(root: Path, settings: dict[str, Any], options: ReadOptions) -> list[str]:
    if options.classes is not None:
        return class_names(options.classes)
    names = settings.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(f"{root / 'data.yaml'}: 'names' must be numbered 0, 1, 2 ...")
        names = [names[label] for label in range(len(names))]
    if isinstance(names, list) and names:
        return [str(name) for name in names]
    for candidate in CLASS_FILES:
        if (root / candidate).exists():
            return class_names(root / candidate)
    raise DataError(f"{root}: neither data.yaml nor classes.txt names the classes; use --classes")


def _image_folder(root: Path, settings: dict[str, Any], options: ReadOptions) -> Path:
    if options.images is not None:
        return options.images
    split = options.split or "train"
    if settings.get(split):
        if not isinstance(settings[split], str):
            raise DataError(f"{root / 'data.yaml'}: {split!r} is not one folder; use --images")
        base = root / settings.get("path", "")
        # Exported data sets often say ../train/images for the folder beside data.yaml.
        inside = settings[split].removeprefix("../")
        for folder in (base / settings[split], root / settings[split], root / inside):
            if folder.is_dir():
                return folder
        raise DataError(f"{root / 'data.yaml'}: {split!r} is {settings[split]!r}, no such folder")
    for folder in (root / "images" / split, root / split / "images", root / "images"):
        if folder.is_dir():
            return folder
    raise DataError(f"{root}: there is no folder of pictures; use --images")


def _listed(listing: Path, images: Path) -> list[Path]:
    """The pictures that a text file names, one a line; ``./`` stands for its folder."""
    files = []
    for number, line in enumerate(read_text(listing).splitlines(), start=1):
        if not line.strip():
            continue
        path = Path(os.path.normpath(listing.parent / line.strip()))
        if not path.is_relative_to(os.path.normpath(images)):
            raise DataError(f"{listing}:{number}: {line.strip()!r} is not in {images}")
        files.append(path)
    return files


def _samples(files: list[Path], images: Path, names: list[str], ledger: Ledger) -> Iterator[Sample]:
    for file in files:
        try:
            yield _sample(file, images, names, ledger)
        except DataError as error:
            ledger.reject(error)


def _sample(file: Path, images: Path, names: list[str], ledger: Ledger) -> Sample:
    width, height = image_size(file, str(file))
    filename = file.relative_to(images).as_posix()
    sample = Sample(filename, width, height, [], str(file))
    label_file = _label_file(file)
    if not label_file.exists():
        ledger.note("picture without a label file, taken as negative", str(file))
        return sample
    sample.where = str(label_file)
    for number, line in enumerate(read_text(label_file).splitlines(), start=1):
        if line.strip():
            where = f"{label_file}:{number}"
            sample.instances.append(_instance(line, names, (width, height), where))
    return sample


def _label_file(image: Path) -> Path:
    """The label file of a picture: the last ``images`` of its path becomes ``labels``."""
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _instance(line: str, names: list[str], size: tuple[int, int], where: str) -> Instance:
    try:
        first, *numbers = line.split()
        label, values = int(first), [float(number) for number in numbers]
    except ValueError:
        raise DataError(f"{where}: {line!r} is not 'class cx cy w h'") from None
    polygon = len(values) >= 6 and len(values) % 2 == 0
    if not (len(values) == 4 or polygon) or not all(map(math.isfinite, values)):
        raise DataError(f"{where}: {line!r} is not 'class cx cy w h'")
    if not 0 <= label < len(names):
        raise DataError(f"{where}: class {label} is not among the {len(names)} classes")
    width, height = size
    if polygon:
        x, y = values[0::2], values[1::2]
        box = [min(x) * width, min(y) * height, max(x) * width, max(y) * height]
    else:
        cx, cy, w, h = values
        box = [(cx - w / 2) * width, (cy - h / 2) * height]
        box += [(cx + w / 2) * width, (cy + h / 2) * height]
    return Instance(box, names[label], label)
