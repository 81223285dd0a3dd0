"""Converters between annotation formats.

Every reader is ``read(path, options, ledger) -> Source`` and every writer
``write(source, out, ledger) -> number of samples``; both stream. To add a format, write such a
function and enter it here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from llmdet.datasets.formats.coco_captions import read_coco_captions
from llmdet.datasets.formats.coco_samples import read_coco, read_objects365
from llmdet.datasets.formats.folders import (
    PICTURES,
    link_pictures,
    listing,
    write_voc,
    write_yolo,
)
from llmdet.datasets.formats.grand import read_grand, read_grand_objects
from llmdet.datasets.formats.grounded_captions import read_grandf, read_refcocog_gcg
from llmdet.datasets.formats.humanref import read_humanref
from llmdet.datasets.formats.label_maps import read_label_maps, read_panoptic
from llmdet.datasets.formats.llava import read_llava
from llmdet.datasets.formats.mdetr import read_flickr30k, read_refcoco
from llmdet.datasets.formats.openimages import read_openimages
from llmdet.datasets.formats.refer import objects_beside, read_refer
from llmdet.datasets.formats.rows import label_map_path, read_rows, source_path
from llmdet.datasets.formats.samples import ReadOptions, Sample, Source
from llmdet.datasets.formats.tsv import read_tsv
from llmdet.datasets.formats.visual_genome import IMAGE_FILE, read_visual_genome
from llmdet.datasets.formats.voc import read_voc
from llmdet.datasets.formats.writing import write_coco, write_grounding, write_odvg
from llmdet.datasets.formats.yolo import IMAGE_SUFFIXES, read_yolo
from llmdet.datasets.jsonl_index import file_digest
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError

READERS: dict[str, Callable[[Path, ReadOptions, Ledger], Source]] = {
    "coco": read_coco,
    "lvis": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "odvg": read_rows,
    "grounding": read_rows,
    "refcoco": read_refcoco,
    "refer": read_refer,
    "flickr30k": read_flickr30k,
    "v3det": read_coco,
    "objects365": read_objects365,
    "openimages": read_openimages,
    "visual_genome": read_visual_genome,
    "llava": read_llava,
    "rexverse": read_tsv,
    "humanref_cot": read_tsv,
    "humanref": read_humanref,
    "grandf": read_grandf,
    "refcocog_gcg": read_refcocog_gcg,
    "grand": read_grand,
    "grand_objects": read_grand_objects,
    "label_maps": read_label_maps,
    "panoptic": read_panoptic,
    "coco_captions": read_coco_captions,
}
WRITERS: dict[str, Callable[[Source, Path, Ledger], int]] = {
    "grounding": write_grounding,
    "odvg": write_odvg,
    "coco": write_coco,
}
#: Formats that are a folder: they are also told which split is written.
FOLDER_WRITERS: dict[str, Callable[[Source, Path, Ledger, str], int]] = {
    "yolo": write_yolo,
    "voc": write_voc,
}


def guess_format(path: Path) -> str:
    """The format that a path alone tells.

    Raises:
        ConfigError: It tells none.
    """
    by_suffix = {".jsonl": "odvg", ".json": "coco", ".yaml": "yolo", ".yml": "yolo"}
    if path.suffix in by_suffix:
        return by_suffix[path.suffix]
    if path.is_dir() and ((path / "Annotations").is_dir() or any(path.glob("*.xml"))):
        return "voc"
    if path.is_dir() and any((path / name).exists() for name in ("data.yaml", "classes.txt")):
        return "yolo"
    raise ConfigError(f"{path}: the format is not clear; say it with --from {'|'.join(READERS)}")


def identity(path: Path, source_format: str | None, options: ReadOptions) -> dict[str, str]:
    """What decides the samples of annotations: hashes of all files that are read, and options.

    Pictures in the folder of the annotations count by name alone.
    """
    beside: tuple[Path, ...] = ()
    if path.suffix == ".jsonl":
        beside = label_map_path(path), source_path(path)
    elif source_format in ("refer", "visual_genome"):
        beside = (objects_beside(path), path.with_name(IMAGE_FILE))
    files = [path, *(file for file in (options.classes, *beside) if file and file.exists())]
    digest = hashlib.blake2b(digest_size=8)
    for root in files:
        inside = sorted(root.rglob("*")) if root.is_dir() else [root]
        for file in (file for file in inside if file.is_file()):
            digest.update(os.fsencode(file.relative_to(root)) + b"\0")
            if file.suffix.lower() not in IMAGE_SUFFIXES:
                with file.open("rb") as opened:
                    digest.update(file_digest(opened.fileno()))
    return {
        "annotations": f"of hash {digest.hexdigest()}",
        "format": source_format or guess_format(path),
        "split": options.split or "all",
    }


def open_source(
    path: Path, source_format: str | None, options: ReadOptions, ledger: Ledger
) -> Source:
    """Open annotations of a format, or of the format that their name tells.

    Raises:
        ConfigError: The format is unknown.
        DataError: The annotations are missing or broken.
    """
    source_format = source_format or guess_format(path)
    if source_format not in READERS:
        raise ConfigError(f"format {source_format!r} is none of {', '.join(READERS)}")
    return READERS[source_format](path, options, ledger)


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
        out: The file to write, which appears only when all of it was written; the folder (voc,
            yolo).
        source_format: A key of :data:`READERS`.
        target_format: A key of :data:`WRITERS` or :data:`FOLDER_WRITERS`.
        options: Where to find what the annotations themselves do not say; a folder that is written
            gets its split, ``train`` if not given, and a link to its pictures.
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
    source = open_source(path, source_format, options, ledger)
    source.samples = _without_expressions(source.samples)
    if progress is not None:
        source.samples = progress(source.samples, source.total)
    if target_format not in FOLDER_WRITERS:
        return WRITERS[target_format](source, out, ledger)
    count = FOLDER_WRITERS[target_format](source, out, ledger, options.split or "train")
    if options.images is not None:
        link_pictures(options.images.resolve(), out / PICTURES[target_format])
    return count


def _without_expressions(samples: Iterator[Sample]) -> Iterator[Sample]:
    for sample in samples:
        if sample.pairs is not None:
            raise DataError(
                f"{sample.where}: field 'pairs' has no place in other formats: rows of expressions "
                "are trained as they are."
            )
        yield sample


def written_file(out: Path, target_format: str, split: str | None = None) -> Path:
    """The file that tells that a conversion has been here: ``out``, or a folder's list."""
    if target_format not in FOLDER_WRITERS:
        return out
    return listing(out, target_format, split or "train")
