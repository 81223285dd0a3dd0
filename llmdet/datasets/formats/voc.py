"""Pascal VOC: one XML file per image, as LabelImg and many labelling tools write it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

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


def read_voc(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open a VOC folder: ``Annotations/*.xml``, or a folder of XML files itself.

    Corners are taken as they stand in the file, without VOC's shift by one pixel, which most tools
    do not follow. ``options.split`` names a list in ``ImageSets/Main``. Classes are those of
    ``options.classes``, else all names met, sorted. Objects marked difficult are not learnt.

    Raises:
        DataError: No XML is found, or one is broken; the message names file and field.
    """
    folder = path / "Annotations" if (path / "Annotations").is_dir() else path
    files = _files_of_split(path, folder, options.split)
    if not files:
        raise DataError(f"{folder}: there are no .xml files")
    names = class_names(options.classes) if options.classes else _all_names(files, ledger)
    labels = {name: label for label, name in enumerate(names)}
    samples = _samples(files, labels, options, ledger)
    return Source(samples, len(files), numbered_categories(names))


def _files_of_split(path: Path, folder: Path, split: str | None) -> list[Path]:
    if split is None:
        return sorted(folder.rglob("*.xml"))
    listing = path / "ImageSets" / "Main" / f"{split}.txt"
    lines = read_text(listing).splitlines()
    return [_listed(folder, line) for line in lines if line.strip()]


def _listed(folder: Path, line: str) -> Path:
    """The file of a line, which is a name, or a name and whether a class is present."""
    whole = folder / f"{line.strip()}.xml"
    return whole if whole.exists() else folder / f"{line.split()[0]}.xml"


def _all_names(files: list[Path], ledger: Ledger) -> list[str]:
    names: set[str] = set()
    for file in files:
        try:
            names |= {_text(item, "name", file) for item in _parse(file).iter("object")}
        except DataError as error:
            ledger.reject(error)
    return sorted(names)


def _samples(
    files: list[Path], labels: dict[str, int], options: ReadOptions, ledger: Ledger
) -> Iterator[Sample]:
    for file in files:
        try:
            yield _sample(file, labels, options)
        except DataError as error:
            ledger.reject(error)


def _sample(file: Path, labels: dict[str, int], options: ReadOptions) -> Sample:
    root = _parse(file)
    filename = root.findtext("filename")
    if not filename:
        raise DataError(f"{file}: field 'filename' is missing")
    size = root.find("size")
    if size is not None and float(size.findtext("width") or 0) > 0:
        width, height = int(_number(size, "width", file)), int(_number(size, "height", file))
    elif options.images is not None:
        width, height = image_size(options.images / filename, str(file))
    else:
        raise DataError(f"{file}: field 'size' is missing; --images FOLDER reads the pictures")
    instances = [_instance(item, labels, file) for item in root.iter("object")]
    return Sample(filename, width, height, instances, str(file))


def _instance(item: ElementTree.Element, labels: dict[str, int], file: Path) -> Instance:
    name = _text(item, "name", file)
    if name not in labels:
        raise DataError(f"{file}: the class {name!r} is not among the classes")
    box = item.find("bndbox")
    if box is None:
        raise DataError(f"{file}: field 'bndbox' of {name!r} is missing")
    corners = [_number(box, edge, file) for edge in ("xmin", "ymin", "xmax", "ymax")]
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    extra = {"difficult": 1} if difficult else {}
    return Instance(corners, name, labels[name], ignored=difficult, extra=extra)


def _parse(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{file}:{error.position[0]}: not valid XML ({error})") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None


def _text(element: ElementTree.Element, key: str, file: Path) -> str:
    text = (element.findtext(key) or "").strip()
    if not text:
        raise DataError(f"{file}: field '{key}' of <{element.tag}> is missing")
    return text


def _number(element: ElementTree.Element, key: str, file: Path) -> float:
    text = _text(element, key, file)
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{file}: field '{key}' is {text!r}, not a number") from None
