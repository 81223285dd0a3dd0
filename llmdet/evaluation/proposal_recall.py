"""How many objects a detector's best boxes cover, whatever their names."""

import dataclasses

import numpy as np

from llmdet.evaluation.average_precision import AREA_NAMES, IOU_THRESHOLDS, evaluate_detections
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import GroundTruth, check_images

LIMITS = (100, 300, 900)


def proposal_recall(
    truth: GroundTruth,
    detections: DetectionTable,
    limits: tuple[int, ...] = LIMITS,
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
) -> dict[str, float]:
    """Average recall over thresholds of IoU of the best boxes of each image, without categories.

    Equal to pycocotools with ``useCats=0``, which also takes boxes of equal score in the order of
    their categories. It leaves out boxes of categories that are not annotated; here all count.

    Args:
        truth: annotations; a crowd is ignored.
        detections: on images of ``truth``; categories only order boxes of equal score.
        limits: ascending numbers of boxes per image.
        iou_thresholds: [T] ascending; 0.5:0.05:0.95 as in COCO.
    Returns:
        ``AR@LIMIT`` of all objects, and ``ARs@``, ``ARm@``, ``ARl@`` of small, medium and large
        ones; -1 where there is none.
    Raises:
        DataError: detections on images without annotations.
    """
    check_images(detections, truth)
    boxes = truth.select(np.argsort(truth.categories, kind="stable"))
    found = detections.select(np.argsort(detections.category_ids, kind="stable"))
    one = np.zeros(1, np.int64)
    objects = dataclasses.replace(
        boxes,
        category_ids=one,
        category_names=("object",),
        categories=np.zeros_like(boxes.categories),
    )
    found = dataclasses.replace(found, category_ids=np.zeros_like(found.category_ids))
    curves = evaluate_detections(
        objects, found, ignored=objects.crowd, max_dets=limits, iou_thresholds=iou_thresholds
    )
    return {
        f"AR{'' if area == 'all' else area[0]}@{limit}": curves.mean_recall(area, index)
        for index, limit in enumerate(limits)
        for area in AREA_NAMES
    }
