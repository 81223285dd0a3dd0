"""What a person decides about doubtful boxes, and the data set that follows from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmdet.apis.web.review import Decision, DoubtfulBox, Review
from llmdet.data_engines.journal import Journal
from llmdet.errors import DataError
from llmdet.labelling.output import Labels, annotation_files, annotation_hash
from llmdet.labelling.review import read_report
from llmdet.labelling.run import LabelJob
from llmdet.utils.files import read_json
from llmdet.utils.whole_files import whole_file

DECISIONS = "review.json"
#: Folder with the annotations as they were before the first decision.
FIRST_VERSION = "before_review"


@dataclass(frozen=True)
class Corrections:
    """A finished labelling, and the decisions about its boxes.

    Decisions are kept in ``review.json``; annotations are always made from the journal and all
    decisions, so that each of them can be changed again.

    Attributes:
        job: the labelling.
        journal: its finished pictures.
    """

    job: LabelJob
    journal: Journal

    def review(self) -> Review:
        """The doubtful boxes, the most doubtful first; those that were decided on come last.

        Raises:
            DataError: ``review.json`` is not what :meth:`save` writes.
        """
        known = self.decisions()
        found: list[tuple[bool, float, str, int]] = []
        boxes: dict[tuple[str, int], DoubtfulBox] = {}
        for row in Labels(self.journal).rows():
            for number, (label, score) in enumerate(zip(row["labels"], row["scores"], strict=True)):
                doubt = abs(score - self.job.settings.limit(self.job.settings.classes[label]))
                decided = number in known.get(row["filename"], {})
                if doubt < self.job.settings.doubt or decided:
                    found.append((decided, doubt, row["filename"], number))
                    boxes[row["filename"], number] = DoubtfulBox(
                        self.job.pictures.folder / row["filename"],
                        row["filename"],
                        tuple(row["boxes"][number]),
                        label,
                        score,
                    )
        keys = [(name, number) for _, _, name, number in sorted(found)]
        return Review(
            self.job.settings.classes,
            [boxes[key] for key in keys],
            lambda decisions: self.save(_by_picture(keys, decisions)),
            {i: known[n][k] for i, (n, k) in enumerate(keys) if k in known.get(n, {})},
        )

    def decisions(self) -> dict[str, dict[int, Decision]]:
        """Those of earlier reviews: picture -> number of a box -> label, None: no object.

        Raises:
            DataError: ``review.json`` is not what :meth:`save` writes.
        """
        return self._stored()[0]

    def save(self, decisions: Mapping[str, Mapping[int, Decision]]) -> str:
        """Write annotations by these decisions; the first version of the files is kept.

        Returns:
            A sentence.

        Raises:
            ConfigError: another process labels into the folder.
            DataError: the annotations were changed by hand, which would be lost.
        """
        job, target = self.job, self.job.output.target
        with job.alone():
            _, first = self._stored()
            self._refuse_changes_by_hand(first)
            kept = job.out / FIRST_VERSION
            if not kept.exists():
                first = annotation_hash(job.out, target)
                _copy_whole(job.out, annotation_files(job.out, target), kept)
            # Before the files: decisions survive whatever happens to these.
            self._store(decisions, first)
            report = job.write(Labels(self.journal, decisions))
        count = sum(map(len, decisions.values()))
        boxes = sum(report.boxes.values())
        return (
            f"Saved: {count} decisions, {boxes} boxes in {report.pictures} pictures of {job.out}; "
            f"the first version is in {kept}."
        )

    def _refuse_changes_by_hand(self, first: str) -> None:
        report = read_report(self.job.out)
        known = {report.annotations if report else "", first}
        now = annotation_hash(self.job.out, self.job.output.target)
        if known != {""} and now not in known:
            raise DataError(
                f"The annotations in {self.job.out} were changed after they were written, and "
                "saving would lose that: finish them by hand, or put those of "
                f"{FIRST_VERSION} back and save again; decisions are kept in {DECISIONS}"
            )

    def _stored(self) -> tuple[dict[str, dict[int, Decision]], str]:
        """Decisions, and the hash of the first version; both empty before the first review."""
        path = self.job.out / DECISIONS
        if not path.exists():
            return {}, ""
        classes = {name: label for label, name in enumerate(self.job.settings.classes)}
        try:
            stored = read_json(path)
            decisions = {
                name: {int(k): None if c is None else classes[c] for k, c in boxes.items()}
                for name, boxes in stored["decisions"].items()
            }
            return decisions, stored["first_version"]
        except (LookupError, TypeError, ValueError, AttributeError):
            raise DataError(
                f"{path} does not hold the decisions of a review of {path.parent}."
            ) from None

    def _store(self, decisions: Mapping[str, Mapping[int, Decision]], first: str) -> None:
        classes = self.job.settings.classes
        named: dict[str, Any] = {
            name: {str(k): None if label is None else classes[label] for k, label in boxes.items()}
            for name, boxes in decisions.items()
        }
        stored = {"first_version": first, "decisions": named}
        with whole_file(self.job.out / DECISIONS) as file:
            file.write(json.dumps(stored, indent=1, ensure_ascii=False).encode())


def _by_picture(
    keys: list[tuple[str, int]], decisions: Mapping[int, Decision]
) -> dict[str, dict[int, Decision]]:
    found: dict[str, dict[int, Decision]] = {}
    for position, label in sorted(decisions.items()):
        name, number = keys[position]
        found.setdefault(name, {})[number] = label
    return found


def _copy_whole(root: Path, files: list[Path], folder: Path) -> None:
    """Copy files below ``root``; the folder appears when all are in it."""
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    for file in files:
        target = partial / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    os.replace(partial, folder)
