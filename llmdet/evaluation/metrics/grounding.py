"""Referring expressions and phrase grounding as mmengine metrics."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from llmdet.errors import ConfigError
from llmdet.evaluation.expressions import ScoredBoxes, group_boxes, read_expressions
from llmdet.evaluation.flickr30k import IOU_THRESHOLD, TOPK, recall_of_hits
from llmdet.evaluation.grefcoco import SCORE_THRESHOLD, grefcoco_scores
from llmdet.evaluation.metrics.detection import check_boxes_alone
from llmdet.evaluation.metrics.reducers import Boxes, FirstHits
from llmdet.evaluation.metrics.shell import IN_SAMPLES, Collected, MetricShell
from llmdet.evaluation.refexp import Criterion, refexp_precision
from llmdet.registry import METRICS


@METRICS.register_module()
class RefExpMetric(MetricShell):
    """RefCOCO, RefCOCO+ and RefCOCOg precision@k; boxes are ranked by score.

    Args:
        ann_file: expressions in MDETR's layout.
        metric: only ``bbox``.
        topk: numbers of boxes that may try.
        iou_thrs: only 0.5.
        criterion: ``iou``, or ``giou`` as MDETR's program.
        **shell: of :class:`MetricShell`.
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
        **shell: Any,
    ) -> None:
        options = {"criterion": criterion, "topk": tuple(topk)}
        super().__init__(
            ann_file, Boxes(), partial(_of_expressions, refexp_precision, options), **shell
        )
        check_boxes_alone("RefExpMetric", metric)
        _check_threshold("RefExpMetric", iou_thrs)


@METRICS.register_module(name=["GRefCOCOMetric", "gRefCOCOMetric"])
class GRefCOCOMetric(MetricShell):
    """gRefCOCO F1, T-acc and N-acc with all targets, where mmdet looks at the first alone.

    Args:
        ann_file: expressions in MDETR's layout.
        metric: only ``bbox``.
        iou_thrs: only 0.5.
        thresh_score: boxes at or above this score are the answer.
        thresh_f1: only 1.0.
        criterion: ``giou`` as the official program, or ``iou`` as mmdet.
        **shell: of :class:`MetricShell`.
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
        **shell: Any,
    ) -> None:
        options = {"criterion": criterion, "score_threshold": thresh_score}
        super().__init__(
            ann_file, Boxes(), partial(_of_expressions, grefcoco_scores, options), **shell
        )
        check_boxes_alone("GRefCOCOMetric", metric)
        _check_threshold("GRefCOCOMetric", iou_thrs)
        if thresh_f1 != 1.0:
            raise ConfigError(f"GRefCOCOMetric: thresh_f1 must be 1.0, not {thresh_f1}")


@METRICS.register_module()
class Flickr30kMetric(MetricShell):
    """Flickr30k Entities recall@k and upper bound.

    Ground truth comes with the samples, see :class:`FirstHits`; only the ranks of first hits are
    kept and gathered.

    Args:
        topk: numbers of boxes that may try; -1 is the upper bound, which is always reported.
        iou_thrs: only 0.5.
        merge_boxes: replace the boxes of a phrase by their enclosing box.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "flickr30k"
    refused: ClassVar = {**MetricShell.refused, "ann_file": "ground truth comes with the samples"}

    def __init__(
        self,
        *,
        topk: Sequence[int] = (*TOPK, -1),
        iou_thrs: float = IOU_THRESHOLD,
        merge_boxes: bool = False,
        **shell: Any,
    ) -> None:
        wanted = tuple(k for k in topk if k > 0)
        super().__init__(
            IN_SAMPLES,
            FirstHits("merged" if merge_boxes else "any"),
            lambda found: recall_of_hits(found.columns[1], wanted),
            **shell,
        )
        _check_threshold("Flickr30kMetric", iou_thrs)


def _of_expressions(scores: Any, options: dict[str, Any], found: Collected) -> dict[str, float]:
    images, _, boxes, values, _ = found.columns
    predictions: dict[int, ScoredBoxes] = group_boxes(images, boxes, values)
    return scores(read_expressions(found.ann_file), predictions, **options)


def _check_threshold(name: str, threshold: float) -> None:
    if threshold != IOU_THRESHOLD:
        raise ConfigError(f"{name}: iou_thrs must be {IOU_THRESHOLD}, not {threshold}")
