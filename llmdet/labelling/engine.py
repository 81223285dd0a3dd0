"""From pictures to rows of labels, by a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.apis.detector import Detector
from llmdet.apis.results import Results
from llmdet.chat import Pace
from llmdet.data_engines.journal import Outcome
from llmdet.errors import DataError
from llmdet.labelling.settings import LabelSettings

#: Boxes are kept to this part of a pixel, which is finer than any detector.
_DECIMALS = 2


@dataclass(frozen=True)
class LabelEngine:
    """Looks at pictures; an item is the path of one below ``folder``.

    Attributes:
        detector: finds and describes.
        folder: of the pictures.
        settings: what to look for.
        batch_size: images that pass through the model together.
    """

    detector: Detector
    folder: Path
    settings: LabelSettings
    batch_size: int = 1

    @property
    def pace(self) -> Pace:
        """How many pictures it takes at a time."""
        return Pace(self.batch_size)

    def answer(self, filenames: Sequence[str]) -> list[Outcome]:
        """One outcome for each picture; of those that cannot be read it says why."""
        settings = self.settings
        found = self.detector.predict(
            (self.folder / filename for filename in filenames),
            list(settings.classes),
            threshold=settings.threshold,
            per_class_thresholds=settings.thresholds,
            nms=settings.nms,
            captions=settings.captions,
            batch_size=self.batch_size,
            tiles=settings.tiles,
            return_errors=True,
        )
        return [
            Outcome(None, problem=str(result))
            if isinstance(result, DataError)
            else Outcome(row_of(filename, result, settings))
            for filename, result in zip(filenames, found, strict=True)
        ]


def row_of(filename: str, found: Results, settings: LabelSettings) -> dict[str, Any]:
    """What the journal keeps of a picture: boxes xyxy in its pixels, labels, scores, captions."""
    assert found.scores is not None
    boxes = np.clip(found.boxes, 0, [found.width, found.height] * 2).astype(np.float64)
    boxes = boxes.round(_DECIMALS)
    there = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    found = found.select(there)
    row: dict[str, Any] = {
        "filename": filename,
        "width": found.width,
        "height": found.height,
        "boxes": boxes[there].tolist(),
        "labels": found.labels.tolist(),
        "scores": [round(float(score), 4) for score in found.scores],  # type: ignore[union-attr]
        "doubt": round(doubt_of(found, settings), 4),
    }
    if found.description:
        row["description"] = found.description
    if found.captions is not None:
        row["captions"] = found.captions
    return row


def doubt_of(found: Results, settings: LabelSettings) -> float:
    """How close the nearest decision was: the least distance of a score from its threshold.

    Where nothing was found, that of the best score, which lies below.
    """
    assert found.scores is not None
    if len(found):
        pairs = zip(found.scores.tolist(), found.names, strict=True)
        return min(abs(score - settings.limit(name)) for score, name in pairs)
    if found.best_score is None:
        return 1.0
    return abs(min(map(settings.limit, settings.classes)) - found.best_score)
