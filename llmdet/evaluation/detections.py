"""Boxes with scores as arrays: what every detection metric is given."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmdet.errors import DataError
from llmdet.utils.files import read_json, read_npz, require

BoxMode = Literal["xyxy", "xywh"]


@dataclasses.dataclass(frozen=True)
class DetectionTable:
    """N scored boxes of a whole data set, in the order of their file.

    The order matters: every official tool breaks ties of scores by it. Boxes keep the form
    they came in, because ``(x + w) - x`` need not be ``w`` in floating point.
    """

    image_ids: np.ndarray  # [N] int64
    category_ids: np.ndarray  # [N] int64, ids of the data set, not indices
    boxes: np.ndarray  # [N, 4] float, absolute pixels
    scores: np.ndarray  # [N] float
    mode: BoxMode = "xyxy"

    def __post_init__(self) -> None:
        lengths = {len(self.image_ids), len(self.category_ids), len(self.boxes), len(self.scores)}
        if len(lengths) != 1 or self.boxes.shape[1:] != (4,):
            raise DataError(
                f"detections disagree in length: {len(self.image_ids)} image ids, "
                f"{len(self.category_ids)} category ids, boxes {self.boxes.shape}, "
                f"{len(self.scores)} scores"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def xywh(self) -> np.ndarray:
        """Boxes as float64 x, y, width, height: [N, 4]."""
        boxes = self.boxes.astype(np.float64)
        if self.mode == "xyxy":
            boxes[:, 2:] -= boxes[:, :2]
        return boxes

    def xyxy(self) -> np.ndarray:
        """Boxes as float64 x1, y1, x2, y2: [N, 4]."""
        boxes = self.boxes.astype(np.float64)
        if self.mode == "xywh":
            boxes[:, 2:] += boxes[:, :2]
        return boxes

    def areas(self) -> np.ndarray:
        """Width times height, as the official tools compute it: [N] float64."""
        boxes = self.xywh()
        return boxes[:, 2] * boxes[:, 3]

    def select(self, index: np.ndarray) -> "DetectionTable":
        """The rows that a boolean mask or an index array names."""
        return DetectionTable(
            self.image_ids[index],
            self.category_ids[index],
            self.boxes[index],
            self.scores[index],
            self.mode,
        )


def empty_detections() -> DetectionTable:
    """No detections at all: what a model that finds nothing predicts."""
    return DetectionTable(
        np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), "xyxy"
    )


def from_coco_results(
    results: Iterable[Mapping[str, Any]], where: str = "results"
) -> DetectionTable:
    """COCO result records ``{image_id, category_id, bbox: xywh, score}`` as arrays.

    Raises:
        DataError: a record lacks a field or its box has not four numbers; it is named.
    """
    images, categories, boxes, scores = [], [], [], []
    for index, record in enumerate(results):
        place = f"{where}[{index}]"
        images.append(require(dict(record), "image_id", place))
        categories.append(require(dict(record), "category_id", place))
        box = require(dict(record), "bbox", place)
        if not isinstance(box, Sequence) or len(box) != 4:
            raise DataError(f"{place}: bbox must be [x, y, width, height], not {box!r}")
        boxes.append(box)
        scores.append(require(dict(record), "score", place))
    return DetectionTable(
        np.asarray(images, np.int64),
        np.asarray(categories, np.int64),
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(scores, np.float64),
        "xywh",
    )


def read_npz_detections(path: str | Path) -> DetectionTable:
    """The npz form: ``image_id``, ``category_id``, ``bbox_xyxy``, ``score``, one row per box."""
    image_ids, category_ids, boxes, scores = read_npz(
        path, "image_id", "category_id", "bbox_xyxy", "score"
    )
    return DetectionTable(
        image_ids.astype(np.int64), category_ids.astype(np.int64), boxes.reshape(-1, 4), scores
    )


def read_coco_results(path: str | Path) -> DetectionTable:
    """A COCO results file: a JSON list of ``{image_id, category_id, bbox: xywh, score}``."""
    results = read_json(path)
    if not isinstance(results, list):
        raise DataError(f"{path} must be a JSON list of results, not {type(results).__name__}")
    return from_coco_results(results, str(path))


def rank_in_runs(values: np.ndarray) -> np.ndarray:
    """Position of each element within its run of equal neighbours: [N] int64 from 0."""
    if len(values) == 0:
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[starts, len(values)])
    return np.arange(len(values)) - np.repeat(starts, lengths)
