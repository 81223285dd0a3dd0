"""RefCOCO, RefCOCO+ and RefCOCOg: is one of the k best boxes right?"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from llmdet.errors import DataError
from llmdet.evaluation.boxes import pairwise_giou, pairwise_iou
from llmdet.evaluation.expressions import EMPTY, Expression, ScoredBoxes

DATASETS = ("refcoco", "refcoco+", "refcocog")
TOPK = (1, 5, 10)
IOU_THRESHOLD = 0.5

Criterion = Literal["iou", "giou"]
Order = Literal["score", "file"]


def refexp_precision(
    expressions: Sequence[Expression],
    predictions: Mapping[int, ScoredBoxes],
    *,
    criterion: Criterion = "iou",
    order: Order = "score",
    topk: Sequence[int] = TOPK,
) -> dict[str, float]:
    """Precision@k of each data set and their mean.

    The mean is over three data sets whether present or not, as in the official programs, so
    absent ones count as 0. An expression without predictions is a miss.

    Args:
        expressions: each with exactly one box.
        predictions: by expression id.
        criterion: ``iou`` as mmdet and the Grounding DINO papers, ``giou`` as MDETR's program,
            whose numbers are lower.
        order: ``score`` ranks by score; ``file`` takes boxes as they come, as mmdet does.
        topk: numbers of boxes that may try.
    Raises:
        DataError: an expression has not one box or an unknown data set.
    """
    hits = {name: np.zeros(len(topk)) for name in DATASETS}
    totals = dict.fromkeys(DATASETS, 0)
    for expression in expressions:
        if expression.dataset not in hits or len(expression.boxes) != 1:
            raise DataError(
                f"expression {expression.id} of {expression.dataset!r} has "
                f"{len(expression.boxes)} boxes; this metric is for one box each in "
                f"{', '.join(DATASETS)}"
            )
        boxes = _ranked(predictions.get(expression.id, EMPTY), criterion, order)
        overlap = (pairwise_iou if criterion == "iou" else pairwise_giou)(boxes, expression.boxes)
        right = overlap[:, 0] >= IOU_THRESHOLD
        hits[expression.dataset] += [right[:k].any() for k in topk]
        totals[expression.dataset] += 1
    precision = {name: hits[name] / max(1, totals[name]) for name in DATASETS}
    mean = sum(float(values.sum()) for values in precision.values())
    result = {"mean_precision": mean / (len(DATASETS) * len(topk))}
    for name in DATASETS:
        for k, value in zip(topk, precision[name].tolist(), strict=True):
            result[f"{name}_precision@{k}"] = value
    return result


def _ranked(predicted: ScoredBoxes, criterion: Criterion, order: Order) -> np.ndarray:
    if order == "file":
        return predicted.boxes
    if criterion == "iou":
        return predicted.by_score()
    # MDETR sorts pairs of score and box, so that equal scores are ranked by their coordinates
    x1, y1, x2, y2 = -predicted.boxes.T
    return predicted.boxes[np.lexsort((y2, x2, y1, x1, -predicted.scores))]
