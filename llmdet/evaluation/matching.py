"""Greedy assignment of detections to ground truth, many images and classes at once.

The rule is that of pycocotools and lvis-api: within an image and a class, detections choose in
order of score; each takes the free box with the highest IoU at or above the threshold (the later
one in the file among equals); a box to be ignored is taken only if no other is free; a crowd is
never used up. Detections of different groups do not compete, so all groups advance together:
one vectorised step per rank instead of one per detection.
"""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from llmdet.evaluation.detections import rank_in_runs

PAIRS_AT_ONCE = 1 << 22  # bounds the memory of one block of IoUs to some hundred MB
CEILING = 1 - 1e-10  # pycocotools lowers a threshold of 1 so that equal boxes still match

PairIoU = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class CandidatePairs:
    """The P pairs of detection and box in one group whose IoU reaches the lowest threshold."""

    detections: np.ndarray  # [P] int64 row of the detection
    boxes: np.ndarray  # [P] int64 row of the box
    ious: np.ndarray  # [P] float64
    ranks: np.ndarray  # [P] int64 turn of the detection among the candidates of its group


def box_iou(first: np.ndarray, second: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of aligned boxes; of a crowd, the share of the first box inside it.

    Args:
        first: [N, 4] float64 x, y, width, height.
        second: [N, 4] float64 x, y, width, height.
        crowd: [N] bool, the second box is a crowd.
    Returns:
        [N] float64, computed in pycocotools' order of operations.
    """
    width = np.minimum(first[:, 0] + first[:, 2], second[:, 0] + second[:, 2])
    width -= np.maximum(first[:, 0], second[:, 0])
    height = np.minimum(first[:, 1] + first[:, 3], second[:, 1] + second[:, 3])
    height -= np.maximum(first[:, 1], second[:, 1])
    overlap = np.where((width > 0) & (height > 0), width * height, 0.0)
    area = first[:, 2] * first[:, 3]
    union = np.where(crowd, area, area + second[:, 2] * second[:, 3] - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def candidate_pairs(
    detection_groups: np.ndarray, box_groups: np.ndarray, pair_iou: PairIoU, threshold: float
) -> CandidatePairs:
    """All pairs within groups at or above an IoU threshold.

    Args:
        detection_groups: [N] sorted group number of each detection, best score first within one.
        box_groups: [G] sorted group number of each box.
        pair_iou: gives [M] IoUs for [M] rows of detections and [M] rows of boxes.
        threshold: lowest IoU that can become a match.
    """
    first = np.searchsorted(box_groups, detection_groups, "left")
    counts = np.searchsorted(box_groups, detection_groups, "right") - first
    rows = np.flatnonzero(counts)
    ends = np.cumsum(counts[rows])
    detections, boxes, ious = [], [], []
    start = 0
    while start < len(rows):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, "right")))
        block = rows[start:stop]
        detection = np.repeat(block, counts[block])
        box = first[detection] + rank_in_runs(detection)
        iou = pair_iou(detection, box)
        keep = iou >= min(threshold, CEILING)
        detections.append(detection[keep])
        boxes.append(box[keep])
        ious.append(iou[keep])
        start = stop
    detection = _join(detections, np.int64)
    unique, inverse = np.unique(detection, return_inverse=True)
    ranks = rank_in_runs(detection_groups[unique])
    return CandidatePairs(
        detection, _join(boxes, np.int64), _join(ious, np.float64), ranks[inverse]
    )


def greedy_match(
    pairs: CandidatePairs,
    thresholds: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Assign detections to boxes at every IoU threshold.

    Args:
        pairs: candidates.
        thresholds: [T] IoU thresholds.
        ignored: [G] bool, taken only by detections that find no other box.
        crowd: [G] bool, may be taken any number of times.
    Returns:
        [D] rows of the detections that have a candidate, ascending, and
        [T, D] int64 row of the box each of them takes, -1 for none.
    """
    rows, columns = np.unique(pairs.detections, return_inverse=True)
    matches = np.full((len(thresholds), len(rows)), -1, np.int64)
    # best choice of each detection first, so that a step only needs the first free pair
    order = np.lexsort(
        (-pairs.boxes, -pairs.ious, ignored[pairs.boxes], pairs.detections, pairs.ranks)
    )
    column, box, iou = columns[order], pairs.boxes[order], pairs.ious[order]
    bounds = np.flatnonzero(np.diff(pairs.ranks[order], prepend=-1, append=-1))
    taken = np.zeros((len(thresholds), len(ignored)), bool)
    reached = iou >= np.minimum(thresholds, CEILING)[:, None]  # [T, P]
    for start, stop in itertools.pairwise(bounds):
        turn = column[start:stop]
        choice = box[start:stop]
        free = reached[:, start:stop] & (~taken[:, choice] | crowd[choice])
        heads = np.flatnonzero(np.diff(turn, prepend=-1))
        position = np.where(free, np.arange(stop - start), stop - start)
        best = np.minimum.reduceat(position, heads, axis=1)  # [T, detections of this turn]
        threshold, detection = np.nonzero(best < stop - start)
        box_taken = choice[best[threshold, detection]]
        matches[threshold, turn[heads[detection]]] = box_taken
        taken[threshold, box_taken] = True
    return rows, matches


def _join(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
