"""OVDEval's NMS-AP: a detector must give a box one name, not all similar ones."""

import numpy as np

from llmdet.evaluation.coco_ap import coco_ap
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import GroundTruth, check_images
from llmdet.evaluation.matching import box_iou, candidate_pairs

IOU_THRESHOLD = 0.5


def nms_ap(truth: GroundTruth, detections: DetectionTable) -> dict[str, float]:
    """COCO AP after `suppress_around_boxes`.

    Source: OVDEval (Yao et al. 2023, section 3.3) and its evaluation script.
    """
    check_images(detections, truth)
    return coco_ap(truth, suppress_around_boxes(truth, detections))


def suppress_around_boxes(
    truth: GroundTruth, detections: DetectionTable, threshold: float = IOU_THRESHOLD
) -> DetectionTable:
    """Keep one detection of any class at each annotated box.

    Around every box, of the detections of the image with an IoU above (not at) the threshold only
    the best scored is kept, unless another box keeps it. Among equal scores the last in the file
    is best, as in the official program for short lists.
    """
    box_order = np.argsort(truth.images, kind="stable")
    order = np.argsort(detections.image_ids, kind="stable")
    boxes, annotated = detections.xywh()[order], truth.boxes[box_order]
    no_crowd = np.zeros(len(annotated), bool)
    pairs = candidate_pairs(
        detections.image_ids[order],
        truth.images[box_order],
        lambda detection, box: box_iou(boxes[detection], annotated[box], no_crowd[box]),
        threshold=float(np.nextafter(threshold, 1.0)),
    )
    scores = detections.scores[order][pairs.detections]
    by_box = np.lexsort((-pairs.detections, -scores, pairs.boxes))
    sorted_boxes = pairs.boxes[by_box]
    is_best = np.r_[True, sorted_boxes[1:] != sorted_boxes[:-1]][: len(sorted_boxes)]
    kept = np.ones(len(detections), bool)
    kept[order[pairs.detections]] = False
    kept[order[pairs.detections[by_box[is_best]]]] = True
    return detections.select(kept)
