"""Predicted boxes from any of the file formats that the metrics accept."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from llmdet.errors import DataError
from llmdet.evaluation.detections import (
    Detections,
    empty_detections,
    read_coco_results,
    read_npz_detections,
)
from llmdet.evaluation.expressions import ScoredBoxes, group_boxes, read_expression_boxes
from llmdet.evaluation.ground_truth import GroundTruth, labels_to_categories
from llmdet.evaluation.predictions import (
    ImagePredictions,
    is_prediction_file,
    read_predictions,
)

LabelMap = Callable[[Sequence[str]], np.ndarray]


def load_detections(path: str | Path, truth: GroundTruth) -> Detections:
    """Detections from npz rows, COCO results JSON or the JSONL of ``tools/test.py --out``.

    The rows of a JSONL file are ordered by image id, because its own order depends on how many
    processes wrote it and how often it was resumed.

    Raises:
        DataError: the file is none of these or its labels do not fit the annotations.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return read_npz_detections(path)
    if not is_prediction_file(path):
        return read_coco_results(path)
    header, images = read_predictions(path)
    categories = (
        labels_to_categories(header.classes, truth) if header.classes else truth.category_ids
    )
    parts = [
        _image_detections(image, categories, f"{path}: image {image.image_id}")
        for image in sorted(images, key=lambda image: image.image_id)
    ]
    return _concatenate(parts)


def load_expression_boxes(path: str | Path) -> dict[int, ScoredBoxes]:
    """Scored boxes by expression id, from npz rows, COCO results or the JSONL of the test tool."""
    path = Path(path)
    if path.suffix == ".npz":
        return read_expression_boxes(path)
    if is_prediction_file(path):
        _, images = read_predictions(path)
        return {
            image.image_id: ScoredBoxes(image.boxes.astype(np.float64), image.scores)
            for image in images
        }
    detections = read_coco_results(path)
    return group_boxes(detections.image_ids, detections.xyxy(), detections.scores)


def _image_detections(image: ImagePredictions, categories: np.ndarray, where: str) -> Detections:
    if image.category_ids is not None:
        categories = np.asarray(image.category_ids, np.int64)
    if len(image.labels) and image.labels.max() >= len(categories):
        raise DataError(f"{where}: label {image.labels.max()} of {len(categories)} classes")
    return Detections(
        np.full(len(image.labels), image.image_id, np.int64),
        categories[image.labels],
        image.boxes,
        image.scores,
    )


def _concatenate(parts: list[Detections]) -> Detections:
    if not parts:
        return empty_detections()
    return Detections(
        np.concatenate([part.image_ids for part in parts]),
        np.concatenate([part.category_ids for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )
