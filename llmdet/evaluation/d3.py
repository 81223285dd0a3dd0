"""D3 (described object detection): COCO AP over descriptions, by length and by number of boxes."""

from collections.abc import Callable

import numpy as np

from llmdet.evaluation.average_precision import PrecisionRecall
from llmdet.evaluation.coco_ap import coco_curves, coco_summary
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import GroundTruth

LENGTHS = {  # words of a description, both ends included
    "short": (1, 3),
    "mid": (4, 6),
    "long": (7, 9),
    "very_long": (10, 10**6),
}
COUNTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # boxes of a description in an image
    "no": lambda count: count == 0,
    "one": lambda count: count == 1,
    "two": lambda count: count == 2,
    "three": lambda count: count == 3,
    "four": lambda count: count == 4,
    "four_more": lambda count: count > 4,
}


def d3_ap(truth: GroundTruth, detections: DetectionTable) -> dict[str, float]:
    """COCO AP of all descriptions and ``mAP_LENGTH`` of each group of lengths.

    Detections of descriptions that the annotations do not have are left out: one prediction file
    serves the full, the presence and the absence split.

    Source: DOD (Xie et al. 2023, section 4.2) and its evaluation script.
    """
    curves = coco_curves(truth, detections)
    return coco_summary(curves) | length_aps(truth, curves)


def length_aps(truth: GroundTruth, curves: PrecisionRecall) -> dict[str, float]:
    """Mean AP of the descriptions of each length; -1 for a group without any that has boxes."""
    per_category = curves.per_category()
    named = zip(truth.category_names, truth.category_ids.tolist(), strict=True)
    # the official program counts words between single spaces
    scored = [(len(name.split(" ")), per_category[category]) for name, category in named]
    result = {}
    for group, (low, high) in LENGTHS.items():
        values = [ap for words, ap in scored if low <= words <= high and ap > -1]
        result[f"mAP_{group}"] = sum(values) / len(values) if values else -1.0
    return result


def d3_ap_by_count(truth: GroundTruth, detections: DetectionTable) -> dict[str, dict[str, float]]:
    """COCO AP within pairs of image and description that have a given number of boxes.

    The group ``no`` is -1 throughout: AP needs boxes.
    """
    box_pairs = _pairs(truth, truth.images, truth.categories)
    keys, counts = np.unique(box_pairs, return_counts=True)
    box_counts = _look_up(keys, counts, box_pairs)
    known = np.isin(detections.category_ids, truth.category_ids)
    detections = detections.select(known)
    detection_pairs = _pairs(truth, detections.image_ids, detections.category_ids)
    detection_counts = _look_up(keys, counts, detection_pairs)
    result = {}
    for group, chosen in COUNTS.items():
        curves = coco_curves(
            truth.select(chosen(box_counts)), detections.select(chosen(detection_counts))
        )
        result[group] = coco_summary(curves)
    return result


def _pairs(truth: GroundTruth, images: np.ndarray, categories: np.ndarray) -> np.ndarray:
    order = np.sort(truth.image_ids)
    index = np.searchsorted(np.sort(truth.category_ids), categories)
    return index * np.int64(len(order)) + np.searchsorted(order, images)


def _look_up(keys: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if len(keys) == 0:
        return np.zeros(len(wanted), np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, counts[place], 0)
