"""Referring expressions and phrase grounding as mmengine metrics."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from llmdet.errors import ConfigError
from llmdet.evaluation.expressions import group_boxes, read_expressions
from llmdet.evaluation.flickr30k import (
    IOU_THRESHOLD,
    TOPK,
    GroundedPhrase,
    first_hit,
    recall_of_hits,
)
from llmdet.evaluation.grefcoco import SCORE_THRESHOLD, grefcoco_scores
from llmdet.evaluation.metrics.base import (
    Columns,
    DetectionMetric,
    to_numpy,
)
from llmdet.evaluation.refexp import Criterion, refexp_precision
from llmdet.registry import METRICS


@METRICS.register_module()
class RefExpMetric(DetectionMetric):
    """RefCOCO, RefCOCO+ and RefCOCOg precision@k; boxes are ranked by score.

    Args:
        ann_file: expressions in MDETR's layout.
        metric: only ``bbox``.
        topk: numbers of boxes that may try.
        iou_thrs: only 0.5.
        criterion: ``iou``, or ``giou`` as MDETR's program.
        **common: of :class:`DetectionMetric`.
    """

    default_prefix = "refexp"

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        metric: str = "bbox",
        topk: Sequence[int] = TOPK,
        iou_thrs: float = IOU_THRESHOLD,
        criterion: Criterion = "iou",
        **common: Any,
    ) -> None:
        _check_protocol(type(self), metric, iou_thrs)
        self.topk = tuple(topk)
        self.criterion = criterion
        super().__init__(ann_file, **common)

    def score(self, columns: Columns, ann_file: str) -> dict[str, float]:
        images, _, boxes, scores, _ = columns
        return refexp_precision(
            read_expressions(ann_file),
            group_boxes(images, boxes, scores),
            criterion=self.criterion,
            topk=self.topk,
        )


@METRICS.register_module(name=["GRefCOCOMetric", "gRefCOCOMetric"])
class GRefCOCOMetric(DetectionMetric):
    """gRefCOCO F1, T-acc and N-acc with all targets, where mmdet looks at the first alone.

    Args:
        ann_file: expressions in MDETR's layout.
        metric: only ``bbox``.
        iou_thrs: only 0.5.
        thresh_score: boxes at or above this score are the answer.
        thresh_f1: only 1.0.
        criterion: ``giou`` as the official program, or ``iou`` as mmdet.
        **common: of :class:`DetectionMetric`.
    """

    default_prefix = "grefcoco"

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        metric: str = "bbox",
        iou_thrs: float = IOU_THRESHOLD,
        thresh_score: float = SCORE_THRESHOLD,
        thresh_f1: float = 1.0,
        criterion: Criterion = "giou",
        **common: Any,
    ) -> None:
        _check_protocol(type(self), metric, iou_thrs)
        if thresh_f1 != 1.0:
            raise ConfigError(f"GRefCOCOMetric: thresh_f1 must be 1.0, not {thresh_f1}")
        self.thresh_score = thresh_score
        self.criterion = criterion
        super().__init__(ann_file, **common)

    def score(self, columns: Columns, ann_file: str) -> dict[str, float]:
        images, _, boxes, scores, _ = columns
        return grefcoco_scores(
            read_expressions(ann_file),
            group_boxes(images, boxes, scores),
            criterion=self.criterion,
            score_threshold=self.thresh_score,
        )


@METRICS.register_module()
class Flickr30kMetric(DetectionMetric):
    """Flickr30k Entities recall@k and upper bound.

    Ground truth comes with the samples: ``phrases``, ``phrase_ids`` (phrase of each box) and
    ``gt_instances.bboxes`` in the original image. Each process keeps, per phrase, the rank of the
    first box that hits; only these ranks are gathered.

    Args:
        topk: numbers of boxes that may try; -1 is the upper bound, which is always reported.
        iou_thrs: only 0.5.
        merge_boxes: replace the boxes of a phrase by their enclosing box.
        **common: of :class:`DetectionMetric`.
    """

    default_prefix = "flickr30k"
    truth_in_samples = True

    def __init__(
        self,
        *,
        topk: Sequence[int] = (*TOPK, -1),
        iou_thrs: float = IOU_THRESHOLD,
        merge_boxes: bool = False,
        **common: Any,
    ) -> None:
        _check_protocol(type(self), "bbox", iou_thrs)
        self.topk = tuple(k for k in topk if k > 0)
        self.boxes: Literal["any", "merged"] = "merged" if merge_boxes else "any"
        super().__init__(**common)

    def reset(self) -> None:
        self._images: list[int] = []
        self._ranks: list[int] = []

    def collect(
        self,
        image_id: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        sample: Mapping[str, Any],
    ) -> None:
        truth = to_numpy(sample["gt_instances"]["bboxes"], torch.float32).reshape(-1, 4)
        phrase_ids = np.asarray(sample["phrase_ids"], np.int64)
        order = np.argsort(-scores, kind="stable")
        for index in range(len(sample["phrases"])):
            wanted = truth[phrase_ids == index]
            if len(wanted) == 0:
                continue
            candidates = boxes[order[labels[order] == index]]
            self._images.append(image_id)
            self._ranks.append(first_hit(GroundedPhrase((), wanted), candidates, self.boxes))

    def arrays(self) -> Columns:
        places = np.arange(len(self._ranks))
        return np.asarray(self._images, np.int64), np.asarray(self._ranks, np.int64), places

    def score(self, columns: Columns, ann_file: str) -> dict[str, float]:
        return recall_of_hits(columns[1], self.topk)


def _check_protocol(metric: type, kind: str, threshold: float) -> None:
    if kind != "bbox":
        raise ConfigError(f"{metric.__name__}: metric must be 'bbox', not {kind!r}")
    if threshold != IOU_THRESHOLD:
        raise ConfigError(f"{metric.__name__}: iou_thrs must be {IOU_THRESHOLD}, not {threshold}")
