"""Write the formats that have one file for each picture: YOLO and Pascal VOC."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from llmdet.datasets.formats.coco_samples import xywh
from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError
from llmdet.utils.whole_files import whole_file

SPLITS = ("train", "val", "test")
#: Format -> the folder of its pictures.
PICTURES = {"yolo": "images", "voc": "JPEGImages"}


def listing(out: Path, target: str, split: str) -> Path:
    """The file of a folder that lists the pictures of a split."""
    folder = out if target == "yolo" else out / "ImageSets" / "Main"
    return folder / f"{split}.txt"


def link_pictures(pictures: Path, link: Path) -> None:
    """Make ``link`` a link to the folder of the pictures.

    Raises:
        DataError: there is something else, or no link can be made.
    """
    if link.is_symlink() and Path(os.readlink(link)) == pictures:
        return
    try:
        link.symlink_to(pictures, target_is_directory=True)
    except OSError as error:
        raise DataError(
            f"{link} cannot be made a link to {pictures} ({error.strerror}): remove what is "
            "there, or copy the pictures."
        ) from None


def write_yolo(source: Source, out: Path, ledger: Ledger, split: str = "train") -> int:
    """Write a YOLO folder: ``labels/``, ``SPLIT.txt`` with its pictures, and ``data.yaml``.

    Pictures belong in ``images/``. Lines are ``class cx cy w h`` in parts of the picture. Splits
    that are written one after the other into a folder share its ``data.yaml``.

    Args:
        source: samples with classes and sizes.
        out: the folder.
        ledger: counts crowd and difficult objects, for which the format has no place.
        split: part of the data set.

    Returns:
        The number of pictures.

    Raises:
        DataError: a sample has no size, classes are free text, two pictures differ in their
            suffix alone, so that they would share a label file, or one has a name that leads out
            of the folder.
    """
    names = _class_names(source, "yolo")
    owners: dict[str, str] = {}
    for sample in source.samples:
        width, height = _size(sample)
        stem = _stem(sample, owners)
        lines = []
        for instance in sample.instances:
            if instance.ignored:
                ledger.note("crowd or difficult object left out", sample.where)
                continue
            x, y, w, h = xywh(instance.bbox)
            parts = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            lines.append(" ".join([str(instance.label), *map(_number, parts)]))
        _write_lines(out / "labels" / f"{stem}.txt", lines)
    _write_lines(listing(out, "yolo", split), [f"./images/{name}" for name in owners.values()])
    _write_settings(out, names)
    return len(owners)


def _write_settings(out: Path, names: list[str]) -> None:
    """``data.yaml`` for the splits that are there; its folder is that of the file."""
    import yaml

    splits = {split: f"{split}.txt" for split in SPLITS if listing(out, "yolo", split).exists()}
    settings: dict[str, Any] = {**splits, "names": dict(enumerate(names))}
    text = yaml.safe_dump(settings, allow_unicode=True, sort_keys=False)
    with whole_file(out / "data.yaml") as file:
        file.write(text.encode())


def write_voc(source: Source, out: Path, ledger: Ledger, split: str = "train") -> int:
    """Write a Pascal VOC folder: ``Annotations/``, ``ImageSets/Main/SPLIT.txt``, ``classes.txt``.

    Pictures belong in ``JPEGImages/``. Corners are written as they are, in pixels from the left
    upper corner of the first pixel, as LabelImg and our reader take them; the official VOC files
    count pixels from 1, and readers that follow them shift our boxes by one pixel.

    Args: those of :func:`write_yolo`; difficult and crowd objects are marked difficult.

    Returns:
        The number of pictures.

    Raises:
        DataError: as :func:`write_yolo`.
    """
    names = _class_names(source, "voc")
    owners: dict[str, str] = {}
    for sample in source.samples:
        stem = _stem(sample, owners)
        tree = ElementTree.ElementTree(_annotation(sample))
        ElementTree.indent(tree)
        with whole_file(out / "Annotations" / f"{stem}.xml") as file:
            tree.write(file, encoding="utf-8")
    _write_lines(listing(out, "voc", split), list(owners))
    _write_lines(out / "classes.txt", names)
    return len(owners)


def _stem(sample: Sample, owners: dict[str, str]) -> str:
    """The path of a picture without its suffix, under which its labels are; noted in ``owners``."""
    path = PurePosixPath(sample.filename)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(
            f"{sample.where}: the label file of {sample.filename!r} would lie outside of the "
            "folder that is written: give names of pictures below their folder."
        )
    stem = str(path.with_suffix(""))
    if stem in owners:
        raise DataError(
            f"{owners[stem]} and {sample.filename} would share a label file: rename one."
        )
    owners[stem] = sample.filename
    return stem


def _annotation(sample: Sample) -> ElementTree.Element:
    width, height = _size(sample)
    root = ElementTree.Element("annotation")
    _child(root, "folder", "JPEGImages")
    _child(root, "filename", sample.filename)
    size = _child(root, "size")
    for key, value in (("width", width), ("height", height), ("depth", 3)):
        _child(size, key, str(value))
    _child(root, "segmented", "0")
    for instance in sample.instances:
        _add_object(root, instance)
    return root


def _add_object(root: ElementTree.Element, instance: Instance) -> None:
    entry = _child(root, "object")
    _child(entry, "name", str(instance.phrase))
    _child(entry, "pose", "Unspecified")
    _child(entry, "truncated", "0")
    _child(entry, "difficult", str(int(instance.ignored)))
    box = _child(entry, "bndbox")
    for key, value in zip(("xmin", "ymin", "xmax", "ymax"), instance.bbox, strict=True):
        _child(box, key, _number(value))


def _child(parent: ElementTree.Element, name: str, text: str | None = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    element.text = text
    return element


def _class_names(source: Source, target: str) -> list[str]:
    if source.categories is None:
        raise DataError(
            f"{target} files hold classes, and this source has sentences: convert it to coco first."
        )
    return [str(category["name"]) for category in source.categories]


def _size(sample: Sample) -> tuple[int, int]:
    if not sample.width or not sample.height:
        raise DataError(f"{sample.where}: width and height are missing; --images FOLDER reads them")
    return sample.width, sample.height


def _number(value: float) -> str:
    return format(value, ".10g")


def _write_lines(path: Path, lines: list[str]) -> None:
    with whole_file(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
