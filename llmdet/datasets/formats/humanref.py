"""HumanRef's expressions about people (RexSeek, arXiv 2503.08507): one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmdet.datasets.fields import Fields
from llmdet.datasets.formats.samples import ReadOptions, Sample, Source, image_size
from llmdet.datasets.formats.tsv import expression_sample
from llmdet.datasets.jsonl import IndexedJsonl
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError


def read_humanref(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open HumanRef's annotations: one sample for each expression.

    Its instances are the ``answer_boxes``, its ``proposals`` the other ``candidate_boxes``. Sizes
    are read from ``options.images``, where that is given and lines do not say them.

    Raises:
        DataError: the file is missing, or a line is broken; names it.
    """
    rows = IndexedJsonl(path, max_bad_rows=ledger.max_bad_rows)
    for line in rows.bad_lines:
        ledger.reject(DataError(f"{path}:{line}: not a JSON object"))
    return Source(_samples(rows, options, ledger), len(rows))


def _samples(rows: IndexedJsonl, options: ReadOptions, ledger: Ledger) -> Iterator[Sample]:
    for number in range(len(rows)):
        try:
            yield _sample(Fields(rows[number], rows.location(number)), options)
        except DataError as error:
            ledger.reject(error)


def _sample(record: Fields, options: ReadOptions) -> Sample:
    name = record.text("image_name")
    answers, candidates = (_boxes(record, key) for key in ("answer_boxes", "candidate_boxes"))
    size: tuple[int | None, int | None] = (None, None)
    if "width" in record and "height" in record:
        size = record.size("width"), record.size("height")
    elif options.images is not None:
        size = image_size(options.images / name, record.where)
    extra = {key: record.get(key) for key in ("id", "domain", "sub_domain")}
    others = [box for box in candidates if box not in answers]
    return expression_sample(
        name, size, record.text("referring"), answers, others, record.where, extra
    )


def _boxes(record: Fields, key: str) -> list[list[float]]:
    return record.boxes(key) if record.array(key) else []
