"""Visual Genome: descriptions of regions, and named objects (Krishna et al., 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmdet.datasets.coco_file import is_id
from llmdet.datasets.fields import Fields
from llmdet.datasets.formats.rows import numbered_categories
from llmdet.datasets.formats.samples import Instance, ReadOptions, Sample, Source
from llmdet.datasets.json_stream import read_list
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.numbers import is_number
from llmdet.errors import DataError

#: Lies beside the annotations and says name and size of each picture.
IMAGE_FILE = "image_data.json"
UNNAMED = "object or region without words"
_SENTENCE_END = ". "

Image = tuple[str, int, int]  # name of the file, width, height


def read_visual_genome(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open ``region_descriptions.json`` or ``objects.json``, with ``image_data.json`` beside it.

    Descriptions are text: each picture's stand in one caption, a sentence each. The first name of
    an object is its class; classes are numbered in the order in which they occur. Pictures are
    named by the tail of their url, ``VG_100K_2/1.jpg``.

    Raises:
        DataError: a file is missing or broken; names file and entry.
    """
    images = _images(path.with_name(IMAGE_FILE))
    _, first = next(read_list(path))
    if "regions" in first:
        return Source(_described(path, images, ledger), None)
    if "objects" not in first:
        raise DataError(f"{path}: the entries have neither 'regions' nor 'objects'")
    names = list(dict.fromkeys(_names(path)))
    labels = {name: label for label, name in enumerate(names)}
    return Source(_named(path, images, labels, ledger), None, numbered_categories(names))


def _images(path: Path) -> dict[Any, Image]:
    images = {}
    for where, values in read_list(path):
        entry = Fields(values, where)
        name = "/".join(entry.text("url").split("/")[-2:])
        images[_identity(entry, "image_id")] = name, entry.size("width"), entry.size("height")
    return images


def _identity(entry: Fields, *keys: str) -> Any:
    key = next((key for key in keys if key in entry), keys[0])
    identity = entry.get(key)
    if not is_id(identity):
        raise entry.fault(key, f"must be a number or a string, not {identity!r}")
    return identity


def _names(path: Path) -> Iterator[str]:
    """Classes of all objects; what is broken is told when the samples are read."""
    for where, values in read_list(path):
        with suppress(DataError):
            yield from filter(None, map(_name, Fields(values, where).objects("objects")))


def _name(item: Fields) -> str:
    names = item.array("names") if "names" in item else []
    return " ".join(str(names[0]).split()) if names else ""


def _named(
    path: Path, images: dict[Any, Image], labels: dict[str, int], ledger: Ledger
) -> Iterator[Sample]:
    def read(item: Fields) -> Instance | None:
        name = _name(item)
        if not name:
            return None
        box = _box(item, ("w", "h"))
        return Instance(box, name, labels[name], extra={"object_id": item.get("object_id")})

    yield from _samples(path, "objects", images, ledger, read)


def _described(path: Path, images: dict[Any, Image], ledger: Ledger) -> Iterator[Sample]:
    def read(item: Fields) -> Instance | None:
        text = " ".join(item.text("phrase").split())
        if not text:
            return None
        box = _box(item, ("width", "height"))
        return Instance(box, text, extra={"region_id": item.get("region_id")})

    for sample in _samples(path, "regions", images, ledger, read):
        sample.caption = ""
        for instance in sample.instances:
            sample.caption += _SENTENCE_END if sample.caption else ""
            start = len(sample.caption)
            sample.caption += str(instance.phrase)
            instance.spans = [[start, len(sample.caption)]]
        yield sample


def _samples(
    path: Path, member: str, images: dict[Any, Image], ledger: Ledger, read: Any
) -> Iterator[Sample]:
    for where, values in read_list(path):
        try:
            entry = Fields(values, where)
            identity = _identity(entry, "image_id", "id")
            if identity not in images:
                raise DataError(f"{where}: {IMAGE_FILE} has no image {identity!r}")
            found = [read(item) for item in entry.objects(member)]
        except DataError as error:
            ledger.reject(error)
            continue
        instances = [instance for instance in found if instance is not None]
        if len(instances) < len(found):
            ledger.note(UNNAMED, where, len(found) - len(instances))
        name, width, height = images[identity]
        yield Sample(name, width, height, instances, where, extra={"id": identity})


def _box(item: Fields, sides: tuple[str, str]) -> list[float]:
    values = []
    for key in ("x", "y", *sides):
        value = item.get(key)
        if not is_number(value):
            raise item.fault(key, f"must be a number, not {value!r}")
        values.append(value)
    x, y, width, height = values
    return [x, y, x + width, y + height]
