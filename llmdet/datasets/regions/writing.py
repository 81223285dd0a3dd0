"""Write conversations about regions as rows of JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdet.datasets.formats.samples import Source
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.regions.masked import mask_rows
from llmdet.datasets.regions.pictures import PictureStore, read_picture
from llmdet.datasets.regions.selection import select
from llmdet.datasets.regions.settings import RegionSettings
from llmdet.datasets.regions.tasks import rows_of
from llmdet.datasets.written_rows import write_rows
from llmdet.errors import ConfigError
from llmdet.prompts.mask_tasks import MASK_TASKS

NO_CONVERSATION = "picture without a conversation"


def write_regions(
    source: Source,
    out: Path,
    settings: RegionSettings,
    ledger: Ledger,
    objects: Source | None = None,
) -> int:
    """Write conversations about what annotations describe.

    Args:
        source: annotations of any format; where it has categories, its phrases are names of
            classes, otherwise descriptions.
        out: the file, which appears only when all of it was written.
        settings: what is asked.
        ledger: counts by cause what is not asked about.
        objects: annotations with classes of the same pictures: give described objects a class,
            and are there to choose from.

    Returns:
        The number of rows.

    Raises:
        ConfigError: `objects` have no classes, or the task needs classes or descriptions that
            `source` has not.
        DataError: the annotations are broken, or nothing is left to ask.
    """
    if settings.task is None:
        rows = _kept_conversations(source, settings, ledger)
    elif settings.task in MASK_TASKS:
        if objects is not None:
            raise ConfigError(f"--task {settings.task} asks of the annotations alone: no --objects")
        rows = mask_rows(source, settings, ledger)
    else:
        rows = _rows(_store(source, objects, settings, ledger), settings, ledger)
    return write_rows(rows, out, ledger)


def _kept_conversations(
    source: Source, settings: RegionSettings, ledger: Ledger
) -> Iterator[dict[str, Any]]:
    for sample in source.samples:
        if not sample.fields.get("conversations"):
            ledger.note(NO_CONVERSATION, sample.where)
            continue
        row: dict[str, Any] = {"filename": settings.folder + sample.filename}
        if sample.width is not None and sample.height is not None:
            row |= {"height": sample.height, "width": sample.width}
        yield row | sample.fields


def _rows(
    pictures: PictureStore, settings: RegionSettings, ledger: Ledger
) -> Iterator[dict[str, Any]]:
    chosen = select(pictures, settings, ledger)
    for picture, places in zip(pictures, chosen, strict=True):
        yield from rows_of(picture, places.tolist(), settings, ledger)


def _store(
    source: Source, objects: Source | None, settings: RegionSettings, ledger: Ledger
) -> PictureStore:
    named = source.categories is not None
    if settings.task == "classify" and not named and objects is None:
        raise ConfigError(
            "--task classify needs the classes of objects, which these annotations lack: name a "
            "file that has them with --objects"
        )
    if settings.task in ("caption", "refer") and named:
        raise ConfigError(
            f"--task {settings.task} needs descriptions, and these annotations have names of "
            "classes alone; --task classify and choose can use them"
        )
    if objects is not None and objects.categories is None:
        raise ConfigError("--objects: the file has no classes")
    store = PictureStore()
    for sample in source.samples:
        picture = read_picture(sample, settings, named, ledger)
        if picture is not None:
            store.add(picture)
    for sample in objects.samples if objects is not None else ():
        if sample.filename in store:
            picture = read_picture(sample, settings, True, ledger)
            if picture is not None:
                store.add(picture)
    return store
