"""A journal of labels as a data set: annotations, and pictures beside them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmdet.data_engines.caption_rules import clean_phrase, phrase_fault
from llmdet.data_engines.journal import Journal
from llmdet.data_engines.pictures import PictureSet
from llmdet.datasets.formats import FOLDER_WRITERS, WRITERS
from llmdet.datasets.formats.folders import PICTURES, link_pictures
from llmdet.datasets.formats.rows import numbered_categories
from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.formats.writing import name_the_classes
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.row_targets import UNIFORM_PROMPT
from llmdet.labelling.settings import LabelSettings, OutputSettings

#: Target -> the file of a split.
_FILES = {"coco": "instances_{}.json", "odvg": "{}.jsonl", "grounding": "{}.jsonl"}
_ROWS = ("train.jsonl", "val.jsonl", "*_label_map.json", "*.source.jsonl")
#: Target -> all that :func:`write_annotations` writes, as patterns below the folder.
_ANNOTATIONS = {
    "coco": ("instances_*.json",),
    "odvg": _ROWS,
    "grounding": _ROWS,
    "yolo": ("labels/**/*.txt", "train.txt", "val.txt", "data.yaml"),
    "voc": ("Annotations/**/*.xml", "ImageSets/Main/*.txt", "classes.txt"),
}

#: Picture -> number of a box in its row -> the label that a person gave it; None: no object.
Decisions = Mapping[str, Mapping[int, int | None]]


@dataclass(frozen=True)
class Labels:
    """Finished labels, as a person corrected them."""

    journal: Journal
    decisions: Decisions = field(default_factory=dict)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of pictures that could be read."""
        for outcome in self.journal.outcomes():
            if outcome.row is not None:
                yield _corrected(outcome.row, self.decisions.get(outcome.row["filename"], {}))


def _corrected(row: dict[str, Any], decided: Mapping[int, int | None]) -> dict[str, Any]:
    """A row without the boxes that are none; a person who names another class is certain."""
    if not decided:
        return row
    labels = [decided.get(number, label) for number, label in enumerate(row["labels"])]
    scores = [
        score if new == old else 1.0
        for new, old, score in zip(labels, row["labels"], row["scores"], strict=True)
    ]
    there = [number for number, label in enumerate(labels) if label is not None]
    columns = {**row, "labels": labels, "scores": scores}
    kept = {
        name: [columns[name][number] for number in there]
        for name in ("boxes", "labels", "scores", "captions")
        if name in columns
    }
    return row | kept


def write_annotations(
    labels: Labels, settings: LabelSettings, output: OutputSettings, out: Path
) -> dict[str, int]:
    """Write annotations of each split; each file appears whole.

    Args:
        labels: finished labels.
        settings: what was looked for.
        output: format, and what is for validation.
        out: the folder.

    Returns:
        Split -> number of pictures.
    """
    names = [row["filename"] for row in labels.rows()]
    validation = output.validation(names)
    splits = {"train": frozenset(names) - validation}
    if validation:
        splits["val"] = validation
    categories = numbered_categories(settings.classes)
    for split, members in splits.items():
        samples = _samples(labels, members, settings, output)
        source = Source(samples, len(members), categories)
        if output.target in FOLDER_WRITERS:
            FOLDER_WRITERS[output.target](source, out, Ledger(), split)
        else:
            name = _FILES[output.target].format(split)
            WRITERS[output.target](source, out / name, Ledger())
    return {split: len(members) for split, members in splits.items()}


def place_pictures(labels: Labels, pictures: PictureSet, output: OutputSettings, out: Path) -> None:
    """Put the pictures beside the annotations.

    Raises:
        DataError: they can be neither linked nor copied.
    """
    folder = out / PICTURES.get(output.target, "images")
    if output.copy:
        _copy(pictures.folder, [row["filename"] for row in labels.rows()], folder)
    else:
        link_pictures(pictures.folder, folder)


def annotation_files(out: Path, target: str) -> list[Path]:
    """The files of annotations in a folder."""
    return sorted(file for pattern in _ANNOTATIONS[target] for file in out.glob(pattern))


def annotation_hash(out: Path, target: str) -> str:
    """A hash of all annotations, by which a change by hand is seen."""
    digest = hashlib.blake2b(digest_size=8)
    for file in annotation_files(out, target):
        digest.update(f"{file.relative_to(out).as_posix()}\0".encode())
        digest.update(hashlib.blake2b(file.read_bytes()).digest())
    return digest.hexdigest()


def _samples(
    labels: Labels, members: Collection[str], settings: LabelSettings, output: OutputSettings
) -> Iterator[Sample]:
    for row in labels.rows():
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
