"""Converters between annotation formats.

Every reader is ``read(path, options, ledger) -> Source`` and every writer
``write(source, out, ledger) -> number of samples``; both stream. To add a format, write such a
function and enter it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from llmdet.datasets.formats.coco import read_coco, read_lvis, read_objects365, read_v3det
from llmdet.datasets.formats.mdetr import read_flickr30k, read_refcoco
from llmdet.datasets.formats.openimages import read_openimages
from llmdet.datasets.formats.rows import read_rows
from llmdet.datasets.formats.samples import Ledger, ReadOptions, Sample, Source
from llmdet.datasets.formats.voc import read_voc
from llmdet.datasets.formats.writing import write_coco, write_grounding, write_odvg
from llmdet.datasets.formats.yolo import read_yolo
from llmdet.errors import ConfigError

READERS: dict[str, Callable[[Path, ReadOptions, Ledger], Source]] = {
    "coco": read_coco,
    "lvis": read_lvis,
    "voc": read_voc,
    "yolo": read_yolo,
    "odvg": read_rows,
    "grounding": read_rows,
    "refcoco": read_refcoco,
    "flickr30k": read_flickr30k,
    "v3det": read_v3det,
    "objects365": read_objects365,
    "openimages": read_openimages,
}
WRITERS: dict[str, Callable[[Source, Path, Ledger], int]] = {
    "grounding": write_grounding,
    "odvg": write_odvg,
    "coco": write_coco,
}


def convert(
    path: Path,
    out: Path,
    source_format: str,
    target_format: str,
    *,
    options: ReadOptions,
    ledger: Ledger,
    progress: Callable[[Iterator[Sample], int | None], Iterator[Sample]] | None = None,
) -> int:
    """Convert annotations, one sample at a time.

    Args:
        path: An annotation file, or the folder of a format that has one file per image.
        out: The file to write. It appears only when all of it was written.
        source_format: A key of :data:`READERS`.
        target_format: A key of :data:`WRITERS`.
        options: Where to find what the annotations themselves do not say.
        ledger: Counts what is skipped and left out.
        progress: Wraps the stream of samples, given their number where it is known.

    Returns:
        The number of samples written.

    Raises:
        ConfigError: Input and output are the same file.
        DataError: The annotations are broken; the message says where.
    """
    if path.resolve() == out.resolve():
        raise ConfigError(f"{out}: the output would overwrite the input")
    source = READERS[source_format](path, options, ledger)
    if progress is not None:
        source.samples = progress(source.samples, source.total)
    return WRITERS[target_format](source, out, ledger)
