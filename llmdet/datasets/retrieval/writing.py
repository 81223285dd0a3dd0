"""Write conversations about candidate objects as rows of JSONL."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmdet.datasets.formats.samples import Source
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.regions.pictures import PictureStore
from llmdet.datasets.retrieval.questions import questions_of, row_of
from llmdet.datasets.retrieval.scenes import read_scene
from llmdet.datasets.retrieval.settings import CLASS_TASKS, RetrievalSettings
from llmdet.datasets.written_rows import write_rows
from llmdet.errors import ConfigError
from llmdet.prompts.class_names import clean_class_name

NO_PROPOSALS = "picture without proposals in --proposals"


def write_retrieval(
    source: Source,
    out: Path,
    settings: RetrievalSettings,
    ledger: Ledger,
    objects: Source | None = None,
) -> int:
    """Write questions about what annotations describe, with candidates to choose from.

    Args:
        source: annotations of any format; where it has categories, its phrases are names of
            classes, otherwise descriptions.
        out: the file, which appears only when all of it was written.
        settings: what is asked.
        ledger: counts by cause what is not asked about.
        objects: annotations with classes of the same pictures: they are candidates too, and give
            described objects a class.

    Returns:
        The number of rows.

    Raises:
        ConfigError: `objects` have no classes, or the task needs classes, descriptions or sentences
            that `source` has not.
        DataError: the annotations are broken, or nothing is left to ask.
    """
    store, vocabulary = _store(source, objects, settings, ledger)
    return write_rows(_rows(store, vocabulary, settings, ledger), out, ledger)


def _rows(
    store: PictureStore, vocabulary: list[str], settings: RetrievalSettings, ledger: Ledger
) -> Iterator[dict[str, Any]]:
    for picture in store:
        if settings.proposals is not None and picture.identity not in settings.proposals.boxes:
            ledger.note(NO_PROPOSALS, picture.filename)
        generator = random.Random(f"{settings.seed}/objects/{settings.task}/{picture.filename}")
        questions = questions_of(picture, settings, vocabulary, generator, ledger)
        for start in range(0, len(questions), settings.turns):
            asked = questions[start : start + settings.turns]
            row = row_of(picture, asked, settings, generator, ledger)
            if row is not None:
                yield row


def _store(
    source: Source, objects: Source | None, settings: RetrievalSettings, ledger: Ledger
) -> tuple[PictureStore, list[str]]:
    """All pictures, and the names of all classes."""
    named = source.categories is not None
    if settings.task in CLASS_TASKS and not named and objects is None:
        raise ConfigError(
            f"--task {settings.task} needs the classes of objects, which these annotations lack: "
            "name a file that has them with --objects"
        )
    if settings.task not in CLASS_TASKS and named:
        raise ConfigError(
            f"--task {settings.task} needs words about objects, and these annotations have names "
            f"of classes alone; they can be asked to {', '.join(CLASS_TASKS)}"
        )
    if objects is not None and objects.categories is None:
        raise ConfigError("--objects: the file has no classes")
    store = PictureStore()
    vocabulary: dict[str, None] = {}
    for part in (source, objects):
        if part is None:
            continue
        names = None
        if part.categories is not None:
            names = {
                item.get("id"): clean_class_name(str(item["name"])) for item in part.categories
            }
            vocabulary |= dict.fromkeys(names.values())
        for sample in part.samples:
            if part is source or sample.filename in store:
                picture = read_scene(sample, settings, names, ledger)
                if picture is not None:
                    store.add(picture)
    return store, list(vocabulary)
