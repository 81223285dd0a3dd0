"""Candidate boxes that a question offers, from a file of detections."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.errors import DataError
from llmdet.utils.files import read_bytes, read_json, read_jsonl, require

#: Of the header of ``tools/test.py --out``; what it says of the detector.
_FORMAT = "llmdet-predictions"
_HEADER = ("model", "weights_hash")


@dataclass(frozen=True, eq=False)
class Candidates:
    """Boxes by image or expression, best first, and where they are from."""

    boxes: Mapping[int, np.ndarray]  # id -> [N, 4] float32 xyxy in pixels
    source: Mapping[str, Any]  # file, its sha256 and, of our detector, model and weights_hash
    scores: Mapping[int, np.ndarray] = field(default_factory=dict)  # id -> [N] float32

    def of(self, identity: int, limit: int) -> np.ndarray:
        """The best boxes [n, 4] of an image or expression, ``limit`` at most."""
        return self.boxes.get(identity, np.zeros((0, 4), np.float32))[:limit]

    def scores_of(self, identity: int, limit: int) -> np.ndarray:
        """[n] scores of the boxes of :meth:`of`."""
        return self.scores.get(identity, np.zeros(0, np.float32))[:limit]


def read_candidates(path: str | Path) -> Candidates:
    """Candidates of a prediction file of ``tools/test.py --out``, or of COCO results.

    Raises:
        DataError: the file is neither.
    """
    source: dict[str, Any] = {
        "file": Path(path).name,
        "sha256": hashlib.sha256(read_bytes(path)).hexdigest(),
    }
    found: dict[int, list[tuple[float, Sequence[float]]]] = defaultdict(list)
    if str(path).endswith(".jsonl"):
        source |= _read_predictions(path, found)
    else:
        for number, record in enumerate(read_json(path)):
            where = f"{path}[{number}]"
            x, y, width, height = require(record, "bbox", where)
            box = [x, y, x + width, y + height]
            found[require(record, "image_id", where)].append((require(record, "score", where), box))
    boxes, scores = {}, {}
    for identity, scored in found.items():
        scored.sort(key=lambda pair: -pair[0])
        boxes[identity] = np.asarray([box for _, box in scored], np.float32).reshape(-1, 4)
        scores[identity] = np.asarray([score for score, _ in scored], np.float32)
    return Candidates(boxes, source, scores)


def _read_predictions(
    path: str | Path, found: dict[int, list[tuple[float, Sequence[float]]]]
) -> dict[str, Any]:
    """Collect the boxes of a prediction file; returns what its header says of the detector."""
    lines = read_jsonl(path)
    _, header = next(lines, (0, {}))
    if not isinstance(header, Mapping) or header.get("format") != _FORMAT:
        raise DataError(
            f"{path}: the first line is no header of tools/test.py --out; candidates are such a "
            "file, or COCO results as .json"
        )
    for number, row in lines:
        where = f"{path}:{number}"
        pairs = zip(require(row, "scores", where), require(row, "boxes", where), strict=True)
        found[require(row, "image_id", where)] += pairs
    return {name: header.get(name) for name in _HEADER}
