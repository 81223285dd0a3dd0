"""What a person looks at after labelling: counts, a page of pictures, and the doubtful ones."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.apis.results import Picture, Results
from llmdet.data_engines.pictures import PictureSet
from llmdet.errors import DataError
from llmdet.labelling.output import Labels
from llmdet.labelling.settings import LabelSettings
from llmdet.utils.files import read_json
from llmdet.utils.whole_files import whole_file

SHEET = "contact_sheet.jpg"
REVIEW = "review.txt"
REPORT = "report.json"
_ON_SHEET = 24
_LISTED = 20


@dataclass(frozen=True)
class LabelReport:
    """What became of the pictures."""

    pictures: int
    boxes: Mapping[str, int]  # class -> number
    without_boxes: int
    damaged: Sequence[str]  # a sentence for each picture that could not be read
    doubtful: int
    splits: Mapping[str, int] = field(default_factory=dict)  # split -> pictures
    annotations: str = ""  # hash of what was written; empty in reports that have none

    def text(self) -> str:
        """Some lines for a person."""
        counts = ", ".join(f"{count:,} {name}" for name, count in self.boxes.items() if count)
        missing = [name for name, count in self.boxes.items() if not count]
        lines = [f"{self.pictures:,} pictures: {counts or 'nothing was found'}"]
        if missing:
            lines.append(f"never found: {', '.join(missing)}")
        if self.without_boxes:
            lines.append(f"without any box: {self.without_boxes:,}")
        lines.append(", ".join(f"{split}: {count:,}" for split, count in self.splits.items()))
        if self.doubtful:
            lines.append(f"doubtful, listed in {REVIEW}: {self.doubtful:,}")
        if self.damaged:
            lines.append(f"could not be read: {len(self.damaged):,}")
            lines += [f"  {problem}" for problem in self.damaged[:_LISTED]]
        if len(self.damaged) > _LISTED:
            lines.append(f"  ... and {len(self.damaged) - _LISTED:,} more, see {REPORT}")
        return "\n".join(lines)

    def write(self, out: Path) -> None:
        """Write it to the folder; a labelling with a report is finished."""
        with whole_file(out / REPORT) as file:
            file.write(json.dumps(asdict(self), indent=1, ensure_ascii=False).encode())


def read_report(out: Path) -> LabelReport | None:
    """The report of a finished labelling, None where there is none.

    Raises:
        DataError: it is no report.
    """
    if not (out / REPORT).exists():
        return None
    try:
        return LabelReport(**read_json(out / REPORT))
    except TypeError:
        raise DataError(f"{out / REPORT} is no report of a labelling.") from None


def summarize(
    labels: Labels, settings: LabelSettings, splits: Mapping[str, int], annotations: str
) -> LabelReport:
    """Count what labels there are.

    Args:
        labels: finished labels.
        settings: what was looked for.
        splits: split -> number of pictures.
        annotations: hash of the written ones.
    """
    boxes = Counter(dict.fromkeys(settings.classes, 0))
    pictures = empty = doubtful = 0
    for row in labels.rows():
        pictures += 1
        boxes.update(settings.classes[label] for label in row["labels"])
        empty += not row["labels"]
        doubtful += row["doubt"] < settings.doubt
    problems = [outcome.problem for outcome in labels.journal.outcomes() if outcome.row is None]
    return LabelReport(pictures, dict(boxes), empty, problems, doubtful, dict(splits), annotations)


def write_doubtful(
    labels: Labels, pictures: PictureSet, settings: LabelSettings, out: Path
) -> None:
    """List the pictures whose scores are near a threshold in ``review.txt``, nearest first."""
    doubts = sorted(
        (row["doubt"], row["filename"]) for row in labels.rows() if row["doubt"] < settings.doubt
    )
    with whole_file(out / REVIEW) as file:
        file.writelines(f"{pictures.folder / name}\n".encode() for _, name in doubts)


def write_sheet(labels: Labels, pictures: PictureSet, settings: LabelSettings, out: Path) -> None:
    """Draw labelled pictures on one page, those with boxes first; always the same ones."""
    from llmdet.visualization.pictures import save_picture
    from llmdet.visualization.sheet import contact_sheet

    chosen = heapq.nsmallest(_ON_SHEET, labels.rows(), key=_order)
    if not chosen:
        return
    drawn, texts = [], []
    for row in chosen:
        results = results_of(row, pictures, settings)
        drawn.append(np.asarray(results.plot()))
        counts = Counter(results.names)
        found = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        texts.append(f"{row['filename']}: {found or 'nothing'}")
    save_picture(contact_sheet(drawn, texts), out / SHEET)


def _order(row: dict[str, Any]) -> tuple[bool, bytes]:
    """Drawn by the hash of the name, so that the page shows all parts of a set."""
    return not row["labels"], hashlib.blake2b(row["filename"].encode(), digest_size=8).digest()


def results_of(row: dict[str, Any], pictures: PictureSet, settings: LabelSettings) -> Results:
    """A row of the journal as results of its picture."""
    labels = np.array(row["labels"], dtype=np.int64)
    return Results(
        Picture(pictures.folder / row["filename"], row["width"], row["height"]),
        np.array(row["boxes"], dtype=np.float32).reshape(-1, 4),
        np.array(row["scores"], dtype=np.float32),
        labels,
        [settings.classes[label] for label in labels],
        settings.classes,
        captions=row.get("captions"),
        description=row.get("description"),
    )
