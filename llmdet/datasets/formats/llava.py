"""Conversations about whole pictures as LLaVA publishes them: one list of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmdet.datasets.fields import Fields
from llmdet.datasets.formats.samples import ReadOptions, Sample, Source, image_size
from llmdet.datasets.json_stream import read_list
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.rows import read_conversation
from llmdet.errors import DataError

NO_PICTURE = "conversation without a picture"


def read_llava(path: Path, options: ReadOptions, ledger: Ledger) -> Source:
    """Open a list of ``{"id", "image", "conversations"}``; those without an image are left out.

    Sizes are read from ``options.images``, where that is given.

    Raises:
        DataError: the file or an entry is broken.
    """
    return Source(_samples(path, options, ledger), None)


def _samples(path: Path, options: ReadOptions, ledger: Ledger) -> Iterator[Sample]:
    for where, values in read_list(path):
        entry = Fields(values, where)
        if "image" not in entry:
            ledger.note(NO_PICTURE, where)
            continue
        try:
            name, width, height = entry.text("image"), None, None
            fields = {"conversations": entry.array("conversations")}
            read_conversation(entry, regions=0)
            if options.images is not None:
                width, height = image_size(options.images / name, where)
        except DataError as error:
            ledger.reject(error)
            continue
        yield Sample(name, width, height, [], where, fields=fields)
