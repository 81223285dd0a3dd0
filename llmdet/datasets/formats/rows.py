"""JSONL rows of the grounding and of the detection form, read into samples.

Beside ``NAME.jsonl`` lie ``NAME_label_map.json`` (detection form: label -> class name) and
``NAME.source.jsonl``, which keeps what the rows do not need for training (ids, masks, licences,
crowd boxes): its first line describes the data set, every further line one row, so that converting
back gives the original file. Without it new ids are given, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmdet.datasets.formats.mdetr import span_problem
from llmdet.datasets.formats.samples import Instance, ReadOptions, Sample, Source
from llmdet.datasets.jsonl import IndexedJsonl
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.rows import read_row
from llmdet.errors import DataError
from llmdet.utils.files import read_json

logger = logging.getLogger(__name__)

ROW_KEYS = ("filename", "width", "height", "grounding", "detection", "pairs")


def label_map_path(path: Path) -> Path:
    """Where the class names of a detection file are: ``NAME_label_map.json``."""
    return path.with_name(f"{path.stem}_label_map.json")


def source_path(path: Path) -> Path:
    """Where the fields of the original format are: ``NAME.source.jsonl``."""
    return path.with_name(f"{path.stem}.source.jsonl")


def read_rows(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open a JSONL file of either form.

    Class names come from ``options.classes`` (a label map), else from the label map beside the
    file, else from the rows' ``category``.

    Raises:
        DataError: On a broken row, with file, line and field.
    """
    rows = IndexedJsonl(path, max_bad_rows=ledger.max_bad_rows)
    for line in rows.bad_lines:
        ledger.reject(DataError(f"{path}:{line}: not a JSON object"))
    origin, extras = _read_source(path, len(rows))
    categories = origin.get("categories")
    names = options.names or (None if categories else _label_names(path, options))
    if names is not None:
        categories = numbered_categories(names)
    samples = _samples(rows, extras, categories, ledger)
    return Source(samples, len(rows), categories, origin.get("header", {}))


def _read_source(path: Path, rows: int) -> tuple[dict[str, Any], IndexedJsonl | None]:
    beside = source_path(path)
    if not beside.exists():
        logger.info("%s is absent: ids and other fields of the source are not restored", beside)
        return {}, None
    extras = IndexedJsonl(beside)
    if len(extras) != rows + 1:
        raise DataError(
            f"{beside} describes {len(extras) - 1} rows, {path} has {rows}. Convert again, or "
            f"remove {beside.name} to give new ids."
        )
    return extras[0], extras


def numbered_categories(names: Sequence[str]) -> list[dict[str, Any]]:
    """COCO categories with ids from 1 for formats that know names only."""
    return [{"id": number, "name": name} for number, name in enumerate(names, start=1)]


def _label_names(path: Path, options: ReadOptions) -> Sequence[str] | None:
    file = options.classes or label_map_path(path)
    if not file.exists():
        if options.classes:
            raise DataError(f"{file}: the label map does not exist")
        return None
    return read_label_map(file)


def read_label_map(path: Path) -> list[str]:
    """Class names of a file ``{"0": "person", ...}``; raises as :func:`names_of_label_map`."""
    return names_of_label_map(read_json(path), path)


def names_of_label_map(mapping: Any, path: object) -> list[str]:
    """Class names of a label map ``{"0": "person", ...}``, whose labels must be 0 .. K-1.

    Raises:
        DataError: It is no such mapping; names the path.
    """
    if not isinstance(mapping, dict) or set(mapping) != {str(i) for i in range(len(mapping))}:
        raise DataError(f'{path}: a label map is {{"0": name, "1": name, ...}} without holes')
    return [str(mapping[str(label)]) for label in range(len(mapping))]


def _samples(
    rows: IndexedJsonl,
    extras: IndexedJsonl | None,
    categories: list[dict[str, Any]] | None,
    ledger: Ledger,
) -> Iterator[Sample]:
    labels = {category.get("id"): i for i, category in enumerate(categories or [])}
    for index in range(len(rows)):
        try:
            sample = row_sample(rows[index], rows.location(index), len(categories or ()) or None)
            if extras is not None:
                _restore(sample, extras[index + 1], labels)
            _name_the_labels(sample, categories)
        except DataError as error:
            ledger.reject(error)
            continue
        yield sample


def row_sample(values: dict[str, Any], where: str, num_classes: int | None = None) -> Sample:
    """The sample of one row; a row of neither form is a picture without objects.

    Raises:
        DataError: A field is missing or malformed; the message names it.
    """
    row = read_row(values, where, num_classes)
    known = (*ROW_KEYS, "image") if "filename" not in values else ROW_KEYS
    rest = {key: value for key, value in values.items() if key not in known}
    sample = Sample(row.filename, row.width, row.height, [], where, row.caption, rest)
    sample.pairs = row.pairs
    if row.caption is None:
        sample.instances = [
            Instance(item.box, item.category, item.label, mask=item.mask)
            for item in row.boxes or ()
        ]
    for pair in row.pairs or ():
        words = pair.category or next(iter(pair.positives), "")
        sample.instances += [Instance(box, words) for box in pair.boxes]
    for number, phrase in enumerate(row.phrases):
        problem = span_problem(phrase.spans, row.caption or "")
        if problem:
            name = f"grounding.regions[{number}].tokens_positive"
            raise DataError(f"{where}: field {name!r} {problem}.")
        sample.instances += [
            Instance(box, phrase.words, None, phrase.spans, mask=mask)
            for box, mask in zip(phrase.boxes, phrase.masks, strict=True)
        ]
    return sample


def _name_the_labels(sample: Sample, categories: list[dict[str, Any]] | None) -> None:
    for instance in sample.instances:
        if instance.label is not None and categories is not None:
            instance.phrase = categories[instance.label]["name"]


def _restore(sample: Sample, extra: dict[str, Any], labels: dict[Any, int]) -> None:
    """Give the sample back the fields that its row left out."""
    same_boxes = len(extra["annotations"]) == len(sample.instances)
    if extra["filename"] != sample.filename or not same_boxes:
        raise DataError(
            f"{sample.where}: the row no longer fits the .source.jsonl beside it. Convert again, "
            "or remove that file to give new ids."
        )
    sample.extra = extra["image"]
    for instance, fields in zip(sample.instances, extra["annotations"], strict=True):
        instance.label = labels.get(fields.pop("label_id", None), instance.label)
        instance.extra = fields
    for item in extra["ignored"]:
        label = labels.get(item.pop("label_id", None))
        sample.instances.append(Instance(**item, label=label, ignored=True))
