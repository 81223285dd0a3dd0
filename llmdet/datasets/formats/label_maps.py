"""Semantic segmentation: pictures of labels (ADE20K, COCO-Stuff, Mapillary), and COCO panoptic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.coco_file import check_ids
from llmdet.datasets.fields import Fields
from llmdet.datasets.formats.samples import Instance, ReadOptions, Sample, Source, class_names
from llmdet.datasets.formats.yolo import IMAGE_SUFFIXES
from llmdet.datasets.json_stream import read_items, read_members
from llmdet.datasets.jsonl_index import open_checked
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.masks import encode_mask, mask_box
from llmdet.datasets.pictures import open_picture
from llmdet.errors import ConfigError, DataError
from llmdet.utils.files import read_json

NO_CLASS = "pixels of a label without a name"
NO_SEGMENT = "segment without a pixel in its picture"
#: A name that stands for no class.
NOTHING = "-"


def read_label_maps(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open a folder of PNGs whose pixels are labels; the mask of a class is all its pixels.

    Args:
        path: the folder, of any depth; ``x/1.png`` is of the picture ``x/1.jpg``, or of the one of
            that stem in ``options.images``.
        options: ``classes`` is a text file with a name a line, the first for label 0, or a JSON
            object of label -> name. Labels without a name, or with the name ``-``, are no class.
        ledger: counts labels without a name.

    Raises:
        ConfigError: no classes are given.
        DataError: a PNG is broken or has colours instead of labels.
    """
    names = _label_names(options)
    categories = [{"id": label, "name": name} for label, name in names.items()]
    numbers = {label: number for number, label in enumerate(names)}

    def samples() -> Iterator[Sample]:
        files = sorted(path.rglob("*.png"))
        if not files:
            raise DataError(f"{path}: there is no .png file of labels in it")
        for file in files:
            try:
                labels = _read_labels(file)
                filename = _picture_of(file.relative_to(path), options)
            except DataError as error:
                ledger.reject(error)
                continue
            sample = _sample(filename, labels, str(file))
            for label in np.unique(labels).tolist():
                if label in numbers:
                    mask = encode_mask(labels == label)
                    sample.instances.append(
                        Instance(mask_box(mask), names[label], numbers[label], mask=mask)
                    )
                else:
                    ledger.note(NO_CLASS, f"{file}: label {label}")
            yield sample

    return Source(samples(), None, categories)


def read_panoptic(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open ``panoptic_*.json``, whose PNGs lie in the folder of its name beside it.

    Raises:
        DataError: a file is missing or broken, or a segment is of no known class.
    """
    with open_checked(str(path)) as file:
        content = read_members(str(path), file, ("annotations",))
    images, categories = (_listed(content, member, path) for member in ("images", "categories"))
    check_ids(images, "image", str(path))
    check_ids(categories, "category", str(path))
    by_id = {image["id"]: image for image in images}
    labels = {category["id"]: label for label, category in enumerate(categories)}

    def samples() -> Iterator[Sample]:
        with open_checked(str(path)) as file:
            for number, values in enumerate(read_items(str(path), file, "annotations.item")):
                entry = Fields(values, f"{path}: annotations[{number}]")
                try:
                    yield _panoptic_sample(path, entry, by_id, categories, labels, ledger)
                except DataError as error:
                    ledger.reject(error)

    return Source(samples(), None, categories)


def _panoptic_sample(
    path: Path,
    entry: Fields,
    images: Mapping[Any, dict[str, Any]],
    categories: list[dict[str, Any]],
    labels: Mapping[Any, int],
    ledger: Ledger,
) -> Sample:
    image = images.get(entry.get("image_id"))
    if image is None:
        raise entry.fault("image_id", "is the id of no image")
    ids = _read_colours(path.with_suffix("") / entry.text("file_name"))
    sample = _sample(Fields(image, entry.where).text("file_name"), ids, entry.where)
    for segment in entry.objects("segments_info"):
        label = labels.get(segment.get("category_id"))
        if label is None:
            raise segment.fault("category_id", "is the id of no category")
        found = ids == segment.get("id")
        if not found.any():
            ledger.note(NO_SEGMENT, entry.where)
            continue
        mask = encode_mask(found)
        ignored = "iscrowd" in segment and bool(segment.get("iscrowd"))
        name = str(categories[label]["name"])
        sample.instances.append(Instance(mask_box(mask), name, label, ignored=ignored, mask=mask))
    return sample


def _sample(filename: str, labels: np.ndarray, where: str) -> Sample:
    height, width = labels.shape
    return Sample(filename, width, height, [], where)


def _listed(content: dict[str, Any], member: str, path: Path) -> list[dict[str, Any]]:
    if not isinstance(content.get(member), list):
        raise DataError(f"{path}: field {member!r} is missing; a panoptic file has a list there")
    return content[member]


def _label_names(options: ReadOptions) -> dict[int, str]:
    """Name of each label that is a class."""
    path = options.classes
    if path is None:
        raise ConfigError("--from label_maps needs --classes: the names of the labels")
    named: Mapping[Any, Any] = (
        read_json(path) if path.suffix == ".json" else dict(enumerate(class_names(path)))
    )
    try:
        names = {int(label): str(name) for label, name in named.items()}
    except (AttributeError, ValueError):
        raise DataError(f'{path}: classes are {{"0": "wall", "1": "building", ...}}') from None
    return {label: name for label, name in names.items() if name != NOTHING}


def _read_labels(path: Path) -> np.ndarray:
    """[h, w] labels."""
    with open_picture(path) as image:
        values = np.asarray(image)
    if values.ndim != 2 or values.dtype == bool:
        raise DataError(f"{path}: is a picture of colours, not of labels")
    return values


def _read_colours(path: Path) -> np.ndarray:
    """[h, w] ids of segments: red + 256 green + 65536 blue."""
    with open_picture(path) as image:
        values = np.asarray(image.convert("RGB"), np.int64)
    return values @ np.array([1, 1 << 8, 1 << 16])


def _picture_of(file: Path, options: ReadOptions) -> str:
    """Name of the picture that a PNG of labels is about."""
    if options.images is not None:
        for suffix in sorted(IMAGE_SUFFIXES):
            if (options.images / file.with_suffix(suffix)).exists():
                return file.with_suffix(suffix).as_posix()
        raise DataError(f"{options.images}: there is no picture {file.with_suffix('')}.*")
    return file.with_suffix(".jpg").as_posix()
