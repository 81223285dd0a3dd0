"""Precision and recall over IoU thresholds, box sizes and classes, as pycocotools defines them.

One implementation serves COCO, LVIS and everything built on them. It exists because no packaged
fast evaluator is exact on all of them (a ground-truth ``ignore`` flag, annotation id 0, pooled
classes, masks); docs/benchmarks.md compares their speed.
"""

import dataclasses

import numpy as np

from llmdet.evaluation.detections import DetectionTable, rank_in_runs
from llmdet.evaluation.ground_truth import GroundTruth
from llmdet.evaluation.matching import (
    CandidatePairs,
    PairIoU,
    box_iou,
    candidate_pairs,
    greedy_match,
)

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
AREA_NAMES = ("all", "small", "medium", "large")
AREA_RANGES = ((0.0, 1e10), (0.0, 1024.0), (1024.0, 9216.0), (9216.0, 1e10))  # px^2


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
    """Curves of K categories; -1 where a category has no box to be found."""

    precision: np.ndarray  # [T, R, K, A, M] at the recall thresholds
    recall: np.ndarray  # [T, K, A, M] at the end of the list
    category_ids: np.ndarray  # [K] ascending
    iou_thresholds: np.ndarray  # [T]
    max_dets: tuple[int, ...]  # M limits per image and category

    def mean_precision(
        self,
        iou: float | None = None,
        area: str = "all",
        limit: int = -1,
        categories: np.ndarray | None = None,
    ) -> float:
        """Mean over all entries that exist, -1 if none does.

        Args:
            iou: one threshold; all if None.
            area: a name of AREA_NAMES.
            limit: index into max_dets.
            categories: [K] mask of the categories to average; all if None.
        """
        values = self._at(self.precision, iou)[..., AREA_NAMES.index(area), limit]
        if categories is not None:
            values = values[:, :, categories]
        return mean_of_existing(values)

    def mean_recall(self, area: str = "all", limit: int = -1) -> float:
        """Mean recall over IoU thresholds and categories, -1 if no category has boxes."""
        return mean_of_existing(self.recall[..., AREA_NAMES.index(area), limit])

    def per_category(self) -> dict[int, float]:
        """AP over all IoU thresholds and sizes of each category id, -1 where it has no box."""
        values = self.precision[..., 0, -1]
        return {
            int(category): mean_of_existing(values[:, :, index])
            for index, category in enumerate(self.category_ids)
        }

    def _at(self, values: np.ndarray, iou: float | None) -> np.ndarray:
        if iou is None:
            return values
        return values[np.isclose(self.iou_thresholds, iou)]


def mean_of_existing(values: np.ndarray) -> float:
    """Mean of the entries above -1; -1 if there are none."""
    existing = values[values > -1]
    return float(np.mean(existing)) if existing.size else -1.0


def evaluate_detections(
    truth: GroundTruth,
    detections: DetectionTable,
    *,
    ignored: np.ndarray,
    max_dets: tuple[int, ...],
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
    unpunished: np.ndarray | None = None,
    mask_iou: PairIoU | None = None,
    detection_areas: np.ndarray | None = None,
) -> PrecisionRecall:
    """Match all detections of a data set and accumulate precision and recall.

    Args:
        truth: boxes, images and categories. Detections of other categories are left out.
        detections: in the order of their file, on images of ``truth``.
        ignored: [G] bool, boxes that neither count as missed nor punish a detection.
        max_dets: ascending limits per image and category; 0 means no limit.
        iou_thresholds: [T] ascending.
        unpunished: [N] bool, detections that are no false positives when unmatched.
        mask_iou: IoU of rows of detections and rows of boxes, instead of that of boxes.
        detection_areas: [N] px^2, instead of those of boxes.
    Source: COCO detection evaluation (Lin et al. 2014) and its program pycocotools.
    """
    table = _Table.build(truth, detections, ignored, max_dets[-1], unpunished, detection_areas)
    gt_rows, rows = table.gt_rows, table.rows

    def iou_of(detection: np.ndarray, box: np.ndarray) -> np.ndarray:
        if mask_iou is not None:
            return mask_iou(rows[detection], gt_rows[box])
        return box_iou(table.boxes[detection], table.gt_boxes[box], table.crowd[box])

    pairs = candidate_pairs(table.groups, table.gt_groups, iou_of, float(iou_thresholds[0]))
    shape = (len(iou_thresholds), len(table.category_ids), len(AREA_RANGES), len(max_dets))
    precision = np.full((shape[0], len(RECALL_THRESHOLDS), *shape[1:]), -1.0)
    recall = np.full(shape, -1.0)
    for index, area_range in enumerate(AREA_RANGES):
        hits, alarms, counted = _judge(table, pairs, iou_thresholds, area_range)
        for k in range(len(table.category_ids)):
            _accumulate_category(
                table,
                k,
                hits,
                alarms,
                counted,
                max_dets,
                precision[..., index, :],
                recall[:, k, index],
            )
    return PrecisionRecall(precision, recall, table.category_ids, iou_thresholds, max_dets)


@dataclasses.dataclass(frozen=True)
class _Table:
    """Detections and boxes sorted by category and image; detections by score within."""

    category_ids: np.ndarray  # [K] ascending
    rows: np.ndarray  # [N] row in the caller's detections
    groups: np.ndarray  # [N] category index * I + image index
    ranks: np.ndarray  # [N] rank of the score within the group
    boxes: np.ndarray  # [N, 4] xywh
    areas: np.ndarray  # [N]
    unpunished: np.ndarray  # [N] bool
    by_score: list[np.ndarray]  # K lists of rows of this table, best score first
    gt_rows: np.ndarray  # [G] row in the caller's truth
    gt_groups: np.ndarray  # [G]
    gt_starts: np.ndarray  # [K + 1] first box of each category
    gt_boxes: np.ndarray  # [G, 4] xywh
    gt_areas: np.ndarray  # [G]
    gt_known: np.ndarray  # [G] bool, see below
    ignored: np.ndarray  # [G] bool
    crowd: np.ndarray  # [G] bool

    @staticmethod
    def build(
        truth: GroundTruth,
        detections: DetectionTable,
        ignored: np.ndarray,
        max_dets: int,
        unpunished: np.ndarray | None,
        detection_areas: np.ndarray | None,
    ) -> "_Table":
        image_ids = np.sort(truth.image_ids)
        category_ids = np.sort(truth.category_ids)
        gt_rows = np.flatnonzero(np.isin(truth.categories, category_ids))
        gt_groups = _groups(
            truth.images[gt_rows], truth.categories[gt_rows], image_ids, category_ids
        )
        order = np.argsort(gt_groups, kind="stable")
        gt_rows, gt_groups = gt_rows[order], gt_groups[order]

        rows = np.flatnonzero(np.isin(detections.category_ids, category_ids))
        groups = _groups(
            detections.image_ids[rows], detections.category_ids[rows], image_ids, category_ids
        )
        order = np.lexsort((-detections.scores[rows], groups))
        rows, groups = rows[order], groups[order]
        ranks = rank_in_runs(groups)
        if max_dets:
            within = ranks < max_dets
            rows, groups, ranks = rows[within], groups[within], ranks[within]
        kept = detections.select(rows)
        categories = groups // max(1, len(image_ids))
        by_score = np.lexsort((-kept.scores, categories))
        bounds = np.searchsorted(categories, np.arange(len(category_ids) + 1))
        starts = np.arange(len(category_ids) + 1) * len(image_ids)
        return _Table(
            category_ids=category_ids,
            rows=rows,
            groups=groups,
            ranks=ranks,
            boxes=kept.xywh(),
            areas=kept.areas() if detection_areas is None else detection_areas[rows],
            unpunished=np.zeros(len(rows), bool) if unpunished is None else unpunished[rows],
            by_score=np.split(by_score, bounds[1:-1]),
            gt_rows=gt_rows,
            gt_groups=gt_groups,
            gt_starts=np.searchsorted(gt_groups, starts),
            gt_boxes=truth.boxes[gt_rows],
            gt_areas=truth.areas[gt_rows],
            # pycocotools and lvis-api store the id of the matched box and test it for truth:
            # a match with annotation id 0 uses the box up but counts as no match
            gt_known=truth.ids[gt_rows] != 0,
            ignored=ignored[gt_rows],
            crowd=truth.crowd[gt_rows],
        )


def _groups(
    images: np.ndarray, categories: np.ndarray, image_ids: np.ndarray, category_ids: np.ndarray
) -> np.ndarray:
    image_index = np.searchsorted(image_ids, images)
    return np.searchsorted(category_ids, categories) * np.int64(len(image_ids)) + image_index


def _judge(
    table: _Table,
    pairs: CandidatePairs,
    thresholds: np.ndarray,
    area_range: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives [T, N], false positives [T, N] and boxes to be found [G] for one size."""
    low, high = area_range
    gt_ignored = table.ignored | (table.gt_areas < low) | (table.gt_areas > high)
    forgiven = table.unpunished | (table.areas < low) | (table.areas > high)
    columns, matches = greedy_match(pairs, thresholds, gt_ignored, table.crowd)
    hits = np.zeros((len(thresholds), len(table.rows)), bool)
    alarms = np.repeat(~forgiven[None], len(thresholds), axis=0)
    if len(columns):
        found = matches >= 0
        void = found & gt_ignored[matches]
        matched = found & table.gt_known[matches]
        passed = void | (~matched & forgiven[columns])
        hits[:, columns] = matched & ~passed
        alarms[:, columns] = ~matched & ~passed
    return hits, alarms, ~gt_ignored


def _accumulate_category(
    table: _Table,
    k: int,
    hits: np.ndarray,
    alarms: np.ndarray,
    counted: np.ndarray,
    max_dets: tuple[int, ...],
    precision: np.ndarray,
    recall: np.ndarray,
) -> None:
    """Fill precision [T, R, K, M] at category k and recall [T, M] for every limit."""
    total = int(np.count_nonzero(counted[table.gt_starts[k] : table.gt_starts[k + 1]]))
    if total == 0:
        return
    order = table.by_score[k]
    # the i-th true positive has recall i / total: which of them first reaches each threshold
    needed = np.searchsorted(np.arange(1, total + 1) / total, RECALL_THRESHOLDS, side="left")
    for m, limit in enumerate(max_dets):
        listed = order[table.ranks[order] < limit] if limit else order
        hit, alarm = hits[:, listed], alarms[:, listed]
        recall[:, m] = hit.sum(axis=1) / total
        precision[:, :, k, m] = _best_precision(hit, alarm, total)[:, needed]


def _best_precision(hit: np.ndarray, alarm: np.ndarray, total: int) -> np.ndarray:
    """Highest precision at or after each true positive: [T, total], 0 beyond the last.

    Precision peaks only at true positives, so that the curve is computed there alone.
    """
    curve = np.zeros((len(hit), total))
    rows, places = np.nonzero(hit)
    turn = rank_in_runs(rows)
    false = np.cumsum(alarm, axis=1)[rows, places].astype(np.float64)
    true = (turn + 1).astype(np.float64)
    curve[rows, turn] = true / (false + true + np.spacing(1))
    return np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1]
