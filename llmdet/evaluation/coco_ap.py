"""COCO box AP."""

import numpy as np

from llmdet.evaluation.average_precision import (
    IOU_THRESHOLDS,
    PrecisionRecall,
    evaluate_detections,
    mean_of_existing,
)
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import GroundTruth, check_images

DEFAULT_MAX_DETS = (1, 10, 100)
MMDET_MAX_DETS = (100, 300, 1000)
HEADLINE_LIMIT = 100  # pycocotools reports AP at 100 detections whatever limits are set


def coco_curves(
    truth: GroundTruth,
    detections: DetectionTable,
    max_dets: tuple[int, ...] = DEFAULT_MAX_DETS,
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
) -> PrecisionRecall:
    """Precision and recall curves of COCO's protocol; a crowd is ignored, nothing else is.

    Raises:
        DataError: detections on images without annotations.
    """
    check_images(detections, truth)
    return evaluate_detections(
        truth,
        detections,
        ignored=truth.crowd,
        max_dets=max_dets,
        iou_thresholds=iou_thresholds,
    )


def coco_summary(curves: PrecisionRecall) -> dict[str, float]:
    """The twelve numbers of pycocotools by name.

    AP is taken at 100 detections per image and category, as pycocotools does even when other
    limits are set (-1 if 100 is not among them); the other APs at the largest limit.
    """
    limits = curves.max_dets
    headline = limits.index(HEADLINE_LIMIT) if HEADLINE_LIMIT in limits else None
    summary = {
        "AP": -1.0 if headline is None else curves.mean_precision(limit=headline),
        "AP50": curves.mean_precision(iou=0.5),
        "AP75": curves.mean_precision(iou=0.75),
    }
    for area in ("small", "medium", "large"):
        summary[f"AP{area[0]}"] = curves.mean_precision(area=area)
    for index, limit in enumerate(limits):
        summary[f"AR@{limit}"] = curves.mean_recall(limit=index)
    for area in ("small", "medium", "large"):
        summary[f"AR{area[0]}"] = curves.mean_recall(area=area)
    return summary


def coco_ap(
    truth: GroundTruth, detections: DetectionTable, max_dets: tuple[int, ...] = DEFAULT_MAX_DETS
) -> dict[str, float]:
    """COCO box AP and AR, equal to pycocotools.

    Args:
        truth: annotations.
        detections: in file order.
        max_dets: limits per image and category; mmdet's CocoMetric uses (100, 300, 1000).
    """
    return coco_summary(coco_curves(truth, detections, max_dets))


def split_ap(
    curves: PrecisionRecall, truth: GroundTruth, base: set[str], novel: set[str]
) -> dict[str, float]:
    """AP of the base and the novel classes of open-vocabulary COCO (at the largest limit).

    Args:
        curves: of all classes.
        truth: names the categories.
        base: class names seen in training.
        novel: class names not seen in training.
    """
    names = dict(zip(truth.category_ids.tolist(), truth.category_names, strict=True))
    summary = {}
    for label, chosen in (("base", base), ("novel", novel)):
        mask = np.asarray([names[k] in chosen for k in curves.category_ids.tolist()], bool)
        values = curves.precision[:, :, mask, 0, -1]
        summary[f"{label}_ap"] = mean_of_existing(values)
        summary[f"{label}_ap50"] = mean_of_existing(values[0])
    return summary
