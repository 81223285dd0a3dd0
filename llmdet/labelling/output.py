"""A journal of labels as a data set: annotations, and pictures beside them."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from llmdet.data_engines.caption_rules import clean_phrase, phrase_fault
from llmdet.data_engines.journal import Journal
from llmdet.datasets.formats import FOLDER_WRITERS, WRITERS
from llmdet.datasets.formats.folders import PICTURES, link_pictures
from llmdet.datasets.formats.rows import numbered_categories
from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.formats.writing import name_the_classes
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.row_targets import UNIFORM_PROMPT
from llmdet.labelling.settings import LabelSettings, OutputSettings, PictureSet

#: Target -> the file of a split.
_FILES = {"coco": "instances_{}.json", "odvg": "{}.jsonl", "grounding": "{}.jsonl"}


def write_labels(
    journal: Journal,
    pictures: PictureSet,
    settings: LabelSettings,
    output: OutputSettings,
    out: Path,
) -> dict[str, int]:
    """Write annotations of each split, and put the pictures beside them.

    Args:
        journal: finished labels.
        pictures: what was labelled.
        settings: what was looked for.
        output: format, and what is for validation.
        out: the folder.

    Returns:
        Split -> number of pictures.

    Raises:
        DataError: pictures can be neither linked nor copied.
    """
    names = [row["filename"] for row in rows_of(journal)]
    validation = output.validation(names)
    splits = {"train": frozenset(names) - validation}
    if validation:
        splits["val"] = validation
    categories = numbered_categories(settings.classes)
    for split, members in splits.items():
        samples = _samples(journal, members, settings, output)
        source = Source(samples, len(members), categories)
        if output.target in FOLDER_WRITERS:
            FOLDER_WRITERS[output.target](source, out, Ledger(), split)
        else:
            name = _FILES[output.target].format(split)
            WRITERS[output.target](source, out / name, Ledger())
    folder = out / PICTURES.get(output.target, "images")
    if output.copy:
        _copy(pictures.folder, names, folder)
    else:
        link_pictures(pictures.folder, folder)
    return {split: len(members) for split, members in splits.items()}


def rows_of(journal: Journal) -> Iterator[dict[str, Any]]:
    """The rows of pictures that could be read."""
    return (outcome.row for outcome in journal.outcomes() if outcome.row is not None)


def _samples(
    journal: Journal, members: Collection[str], settings: LabelSettings, output: OutputSettings
) -> Iterator[Sample]:
    for row in rows_of(journal):
        if row["filename"] in members:
            sample = _sample(row, settings)
            if output.target == "grounding" and row.get("captions"):
                sample.caption = name_the_classes(sample.instances)
                for instance, caption in zip(sample.instances, row["captions"], strict=True):
                    phrase = clean_phrase(caption)
                    if phrase_fault(caption, phrase) is None:
                        instance.phrase = phrase
            yield sample


def _sample(row: dict[str, Any], settings: LabelSettings) -> Sample:
    instances = [
        Instance(box, settings.classes[label], label, extra={"score": score})
        for box, label, score in zip(row["boxes"], row["labels"], row["scores"], strict=True)
    ]
    fields = {}
    if "description" in row:
        fields["conversations"] = [
            {"from": "human", "value": UNIFORM_PROMPT},
            {"from": "gpt", "value": row["description"]},
        ]
    size = (row["width"], row["height"])
    return Sample(row["filename"], *size, instances, row["filename"], fields=fields)


def _copy(pictures: Path, names: list[str], folder: Path) -> None:
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(pictures / name, target)
