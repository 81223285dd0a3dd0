"""gRefCOCO: expressions with one target, several or none."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from llmdet.evaluation.boxes import pairwise_giou, pairwise_iou
from llmdet.evaluation.expressions import EMPTY, Expression, ScoredBoxes

SCORE_THRESHOLD = 0.7
OVERLAP_THRESHOLD = 0.5


def grefcoco_scores(
    expressions: Sequence[Expression],
    predictions: Mapping[int, ScoredBoxes],
    *,
    criterion: Literal["giou", "iou"] = "giou",
    targets: Literal["all", "first"] = "all",
    score_threshold: float = SCORE_THRESHOLD,
) -> dict[str, float]:
    """Share of expressions answered perfectly, and accuracies of "there is a target" and "none".

    Args:
        expressions: with any number of boxes.
        predictions: by expression id; an absent one predicts nothing.
        criterion: ``giou`` as the official program, ``iou`` as mmdet.
        targets: ``all``; ``first`` looks at the first target alone, which is mmdet's fault.
        score_threshold: boxes at or above this score are the answer.
    Returns:
        ``F1_score``, ``T_acc`` and ``N_acc``; an accuracy without any such expression is -1.
    Source: GREC (He et al. 2023, section 4) and its program.
    """
    overlap_of = pairwise_giou if criterion == "giou" else pairwise_iou
    perfect, answered, rejected = [], [], []
    for expression in expressions:
        predicted = predictions.get(expression.id, EMPTY)
        boxes = predicted.boxes[predicted.scores >= score_threshold]
        if len(expression.boxes) == 0:
            rejected.append(len(boxes) == 0)
            perfect.append(len(boxes) == 0)
            continue
        answered.append(len(boxes) > 0)
        wanted = expression.boxes if targets == "all" else expression.boxes[:1]
        pairs = _greedy_pairs(overlap_of(boxes, wanted))
        perfect.append(pairs == len(boxes) == len(wanted))
    return {"F1_score": _mean(perfect), "T_acc": _mean(answered), "N_acc": _mean(rejected)}


def _greedy_pairs(overlap: np.ndarray) -> int:
    """Number of pairs taken best first among those at or above the threshold: overlap [N, M]."""
    overlap = overlap.copy()
    pairs = 0
    while overlap.size and overlap.max() >= OVERLAP_THRESHOLD:
        row, column = np.unravel_index(np.argmax(overlap), overlap.shape)
        overlap[row, :] = 0
        overlap[:, column] = 0
        pairs += 1
    return pairs


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else -1.0
