"""LVIS box AP and LVIS "fixed AP", the numbers that open-vocabulary detectors publish."""

import dataclasses
from typing import Literal

import numpy as np

from llmdet.errors import ConfigError
from llmdet.evaluation.average_precision import PrecisionRecall, evaluate_detections
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import (
    FREQUENCIES,
    GroundTruth,
    LVISGroundTruth,
    check_images,
)
from llmdet.evaluation.topk import top_per_group

MAX_DETS_PER_IMAGE = 300
MAX_DETS_PER_CLASS = 10_000

CutOrder = Literal["all", "federated"]


def lvis_curves(truth: LVISGroundTruth, detections: DetectionTable) -> PrecisionRecall:
    """Curves of LVIS's federated protocol, without any limit on the number of detections.

    Detections count only on categories that an image is annotated for (present or verified
    absent); unmatched ones on not exhaustively annotated categories are not punished. Boxes
    without area do not exist, neither annotated nor detected.

    Raises:
        DataError: detections on images without annotations.
    Source: LVIS (Gupta et al. 2019, section 2) and its program lvis-api.
    """
    check_images(detections, truth.boxes)
    boxes = _existing_boxes(truth)
    judged = detections.select(federated_mask(truth, detections))
    return evaluate_detections(
        # lvis-api knows no crowds: a box with iscrowd is an object like any other
        dataclasses.replace(boxes, crowd=np.zeros_like(boxes.crowd)),
        judged,
        ignored=boxes.ignore,
        max_dets=(0,),
        unpunished=contains(truth.not_exhaustive, judged),
    )


def federated_mask(truth: LVISGroundTruth, detections: DetectionTable) -> np.ndarray:
    """The detections that are judged at all: [N] bool.

    A detection is judged if its box has an area and the annotators looked for its category in
    its image: the category is annotated there or listed as absent.
    """
    boxes = _existing_boxes(truth)
    annotated = np.stack([boxes.images, boxes.categories], axis=1)
    judged = contains(np.concatenate([annotated, truth.negative]), detections)
    rows = np.flatnonzero(judged)  # few of all, where prompts have every class
    judged[rows] = detections.select(rows).areas() > 0
    return judged


def lvis_summary(
    truth: LVISGroundTruth, curves: PrecisionRecall, max_dets: int
) -> dict[str, float]:
    """The thirteen numbers of lvis-api by name; ``max_dets`` only names the recalls."""
    order = np.argsort(truth.boxes.category_ids, kind="stable")
    frequencies = np.asarray(truth.frequencies)[order]
    summary = {
        "AP": curves.mean_precision(),
        "AP50": curves.mean_precision(iou=0.5),
        "AP75": curves.mean_precision(iou=0.75),
    }
    for area in ("small", "medium", "large"):
        summary[f"AP{area[0]}"] = curves.mean_precision(area=area)
    for frequency in FREQUENCIES:
        summary[f"AP{frequency}"] = curves.mean_precision(categories=frequencies == frequency)
    summary[f"AR@{max_dets}"] = curves.mean_recall()
    for area in ("small", "medium", "large"):
        summary[f"AR{area[0]}@{max_dets}"] = curves.mean_recall(area=area)
    return summary


def cap_per_image(detections: DetectionTable, limit: int = MAX_DETS_PER_IMAGE) -> DetectionTable:
    """The best ``limit`` detections of each image over all categories, as lvis-api cuts them.

    The cut comes before the federated filter: detections that will not be judged use slots.
    """
    return detections.select(top_per_group(detections.image_ids, detections.scores, limit))


def cap_per_class(
    truth: LVISGroundTruth,
    detections: DetectionTable,
    limit: int = MAX_DETS_PER_CLASS,
    cut_order: CutOrder = "all",
) -> DetectionTable:
    """The best ``limit`` detections of each class over the whole data set.

    Args:
        truth: annotations.
        detections: in file order, which breaks ties.
        limit: detections kept per class.
        cut_order: ``all`` cuts among all detections, as the reference program does, so that
            detections which will not be judged use slots; ``federated`` among the judged ones.
    Source: fixed AP (Dave et al. 2021, section 4).
    """
    if cut_order not in ("all", "federated"):
        raise ConfigError(f"cut_order must be 'all' or 'federated', not {cut_order!r}")
    if cut_order == "federated":
        detections = detections.select(federated_mask(truth, detections))
    kept = top_per_group(detections.category_ids, detections.scores, limit)
    return detections if kept.all() else detections.select(kept)


def lvis_ap(
    truth: LVISGroundTruth, detections: DetectionTable, max_dets: int = MAX_DETS_PER_IMAGE
) -> dict[str, float]:
    """LVIS box AP, equal to lvis-api with at most ``max_dets`` detections per image."""
    curves = lvis_curves(truth, cap_per_image(detections, max_dets))
    return lvis_summary(truth, curves, max_dets)


def lvis_fixed_ap(
    truth: LVISGroundTruth,
    detections: DetectionTable,
    limit: int = MAX_DETS_PER_CLASS,
    cut_order: CutOrder = "all",
) -> dict[str, float]:
    """LVIS fixed AP: ``limit`` detections per class over the data set, no limit per image.

    Recalls are named ``AR@-1`` after the reference program's setting for "no limit".
    """
    curves = lvis_curves(truth, cap_per_class(truth, detections, limit, cut_order))
    return lvis_summary(truth, curves, max_dets=-1)


def _existing_boxes(truth: LVISGroundTruth) -> GroundTruth:
    boxes = truth.boxes
    return boxes.select((boxes.areas > 0) & np.isin(boxes.categories, boxes.category_ids))


def contains(pairs: np.ndarray, detections: DetectionTable) -> np.ndarray:
    """Whether the (image, category) of each detection is among ``pairs`` [X, 2]: [N] bool."""
    if len(pairs) == 0:
        return np.zeros(len(detections), bool)
    images, inverse = np.unique(pairs[:, 0], return_inverse=True)
    categories = np.unique(pairs[:, 1])
    known = np.unique(inverse * len(categories) + np.searchsorted(categories, pairs[:, 1]))
    image = np.minimum(np.searchsorted(images, detections.image_ids), len(images) - 1)
    category = np.searchsorted(categories, detections.category_ids)
    category = np.minimum(category, len(categories) - 1)
    key = image * len(categories) + category
    place = np.minimum(np.searchsorted(known, key), len(known) - 1)
    found = known[place] == key
    found &= images[image] == detections.image_ids
    return found & (categories[category] == detections.category_ids)
