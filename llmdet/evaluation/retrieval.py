"""Precision and recall of boxes that a model chose, where a threshold of scores has no part."""

import dataclasses

import numpy as np

from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import GroundTruth, LVISGroundTruth, check_images
from llmdet.evaluation.lvis_ap import contains, federated_mask
from llmdet.evaluation.matching import box_iou, candidate_pairs, greedy_match

IOU = 0.5


def retrieval_scores(
    truth: GroundTruth | LVISGroundTruth, detections: DetectionTable
) -> dict[str, float | int]:
    """Shares of the chosen boxes that are right and of the annotated ones that are found.

    Over all boxes together, at an overlap of 0.5. Within an image and a class boxes are matched
    one to one in order of score. A box that lies on a crowd does not count; of LVIS neither does
    one of a class that the annotators did not look for in the image, nor a wrong one of a class
    of which they did not box every object.

    Args:
        truth: annotations.
        detections: what was chosen.

    Returns:
        ``precision_50``, ``recall_50``, ``f1_50``, and the numbers of ``boxes`` that were chosen
        and that are ``annotated``.
    """
    open_ended: np.ndarray = np.zeros(len(detections), bool)
    if isinstance(truth, LVISGroundTruth):
        check_images(detections, truth.boxes)
        detections = detections.select(federated_mask(truth, detections))
        open_ended = contains(truth.not_exhaustive, detections)
        truth = dataclasses.replace(truth.boxes, crowd=truth.boxes.ignore)
    check_images(detections, truth)
    known = np.isin(detections.category_ids, truth.category_ids)
    detections, open_ended = detections.select(np.flatnonzero(known)), open_ended[known]
    found_groups, box_groups = _groups(truth, detections)
    order = np.lexsort((-detections.scores, found_groups))
    boxes = np.argsort(box_groups, kind="stable")
    found, wanted, crowd = detections.xywh()[order], truth.boxes[boxes], truth.crowd[boxes]
    pairs = candidate_pairs(
        found_groups[order],
        box_groups[boxes],
        lambda row, box: box_iou(found[row], wanted[box], crowd[box]),
        IOU,
    )
    rows, matches = greedy_match(pairs, np.array([IOU]), crowd, crowd)
    match: np.ndarray = np.full(len(found), -1)
    match[rows] = matches[0]
    hits = (match >= 0) & ~crowd[match] if len(crowd) else np.zeros(len(found), bool)
    judged = hits | ((match < 0) & ~open_ended[order])
    right, chosen, total = int(hits.sum()), int(judged.sum()), int((~crowd).sum())
    precision, recall = right / max(1, chosen), right / max(1, total)
    both = precision + recall
    return {
        "precision_50": precision,
        "recall_50": recall,
        "f1_50": 2 * precision * recall / both if both else 0.0,
        "boxes": chosen,
        "annotated": total,
    }


def _groups(truth: GroundTruth, detections: DetectionTable) -> tuple[np.ndarray, np.ndarray]:
    """A number for the image and class of each detection [N] and of each annotated box [G]."""
    images, categories = np.sort(truth.image_ids), np.sort(truth.category_ids)

    def number(image: np.ndarray, category: np.ndarray) -> np.ndarray:
        place = np.searchsorted(categories, category)
        return place * np.int64(len(images)) + np.searchsorted(images, image)

    return (
        number(detections.image_ids, detections.category_ids),
        number(truth.images, truth.categories),
    )
