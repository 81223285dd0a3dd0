"""RefCOCO, RefCOCO+ and RefCOCOg as their authors publish them (Kazemzadeh, 2014; Mao, 2016).

``refs(umd).p`` holds the expressions, ``instances.json`` beside it the objects of the pictures. The
former is a pickle, of which nothing but lists, dicts, texts and numbers is read. An expression of
gRefCOCO's ``grefs(unc).json`` may mean several objects, or none.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdet.datasets.coco_file import CocoStream
from llmdet.datasets.fields import Fields
from llmdet.datasets.formats.coco_samples import (
    each_image,
    image_sample,
    open_stream,
    split_box,
)
from llmdet.datasets.formats.samples import Instance, ReadOptions, Sample, Source
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError
from llmdet.utils.files import read_json

OBJECT_FILE = "instances.json"
_NONE = -1  # gRefCOCO's annotation of an expression that nothing answers to


def objects_beside(path: Path) -> Path:
    """The file with all objects of the pictures that the expressions are about."""
    return path.with_name(OBJECT_FILE)


def read_refer(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open ``refs(*).p``, or the same as json: one sample for each expression.

    ``options.split`` is one of the file's own: train, val, testA, testB, test.

    Raises:
        DataError: a file is missing or broken, the pickle holds more than data, or the split is
            none of the file's.
    """
    refs = _by_image(path, options.split)
    stream = open_stream(objects_beside(path), ledger)
    return Source(_samples(stream, refs, options, ledger), None)


def _samples(
    stream: CocoStream, refs: dict[Any, list[Fields]], options: ReadOptions, ledger: Ledger
) -> Iterator[Sample]:
    def convert(image: dict[str, Any], annotations: list[dict[str, Any]]) -> list[Sample]:
        boxes = {item.get("id"): item for item in annotations}
        return [
            sample
            for ref in refs.get(image["id"], ())
            for sample in _expressions(ref, boxes, image, stream.path, options)
        ]

    for samples in each_image(stream, convert, ledger):
        yield from samples


def _expressions(
    ref: Fields,
    annotations: dict[Any, dict[str, Any]],
    image: dict[str, Any],
    path: str,
    options: ReadOptions,
) -> Iterator[Sample]:
    given = ref.get("ann_id")
    identities = [each for each in (given if isinstance(given, list) else [given]) if each != _NONE]
    for identity in identities:
        if identity not in annotations:
            raise ref.fault("ann_id", f"names the annotation {identity!r}, which {path} has not")
    for sentence in ref.objects("sentences"):
        sample = image_sample(image, path, options)
        sample.where, sample.extra = sentence.where, {}
        sample.caption = sentence.text("sent").strip()
        spans = [[0, len(sample.caption)]]
        for identity in identities:
            bbox, _ = split_box(annotations[identity], f"{path}: annotation id {identity!r}")
            mask = annotations[identity].get("segmentation")
            extra = {"original_id": identity} | ({"segmentation": mask} if mask else {})
            sample.instances.append(Instance(bbox, sample.caption, None, spans, extra=extra))
        yield sample


def _by_image(path: Path, split: str | None) -> dict[Any, list[Fields]]:
    """The file's entries of one split, by the id of their image."""
    content = read_json(path) if path.suffix == ".json" else read_plain_pickle(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: a list of expressions is expected")
    refs: dict[Any, list[Fields]] = {}
    splits = set()
    for number, values in enumerate(content):
        ref = Fields(values, f"{path}: entry {number}")
        splits.add(ref.text("split"))
        if split is None or ref.text("split") == split:
            refs.setdefault(ref.get("image_id"), []).append(ref)
    if not refs:
        raise DataError(f"{path}: no expression is of the split {split!r}, but {sorted(splits)}")
    return refs


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every name, so that nothing is ever called."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_plain_pickle(path: Path) -> Any:
    """What a pickle of lists, dicts, texts and numbers holds; nothing in it is executed.

    Raises:
        DataError: the file is missing, broken, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a broken pickle raises whatever its bytes stumble on
        raise DataError(f"{path}: is no pickle of plain data ({error})") from None
