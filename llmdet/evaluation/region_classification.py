"""Naming given regions: accuracy of class scores, and word overlap of free text."""

from collections.abc import Sequence

import numpy as np

from llmdet.errors import DataError

TOPK = (1, 5, 10)


def class_accuracy(
    scores: np.ndarray, labels: np.ndarray, topk: Sequence[int] = TOPK
) -> dict[str, float]:
    """Accuracies of class scores of given regions.

    ``mean_per_class_accuracy`` is over the classes that have regions (scikit-learn's balanced
    accuracy); ``macro_top1`` also counts classes that were predicted without having any, with 0
    (torchmetrics' macro accuracy); ``macro_f1`` is over all classes, absent ones with 0.

    Args:
        scores: [N, K] one row per region. Among equal scores the lower class wins.
        labels: [N] right class.
        topk: k of each top-k accuracy.
    Raises:
        DataError: shapes disagree or a label is not a class.
    """
    if scores.ndim != 2 or len(scores) != len(labels):
        raise DataError(f"scores {scores.shape} do not fit {len(labels)} labels")
    classes = scores.shape[1]
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels must be among {classes} classes, at least one region is needed")
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = np.argmax(order == labels[:, None], axis=1)
    predicted = order[:, 0]
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    actual = np.bincount(labels, minlength=classes)
    claimed = np.bincount(predicted, minlength=classes)
    recall = hits / np.maximum(actual, 1)
    f1 = 2 * hits / np.maximum(actual + claimed, 1)
    return {
        **{f"top{k}": float((rank < k).mean()) for k in topk},
        "mean_per_class_accuracy": float(recall[actual > 0].mean()),
        "macro_top1": float(recall[actual + claimed > 0].mean()),
        "macro_f1": float(f1.mean()),
    }


def semantic_iou(answers: Sequence[str], names: Sequence[str]) -> float:
    """Mean word overlap (intersection over union of word sets) of answers and class names.

    Answers are cleaned as in Osprey's program: of an answer with colons the part between the
    first and the second counts; full stops and commas become spaces; case is ignored.

    Args:
        answers: free text, one per region.
        names: right class names, ``_`` and ``:`` read as spaces.
    Source: Osprey (Yuan et al. 2024, section 4.1) and its program.
    """
    if len(answers) != len(names) or not answers:
        raise DataError(f"{len(answers)} answers for {len(names)} regions")
    return sum(map(_word_iou, answers, names)) / len(answers)


def _word_iou(answer: str, name: str) -> float:
    answer = answer.strip()
    if ":" in answer:
        answer = answer.split(":")[1]
    said = set(answer.replace(".", " ").replace(",", " ").lower().split())
    wanted = set(name.replace("_", " ").replace(":", " ").lower().split())
    union = said | wanted
    return len(said & wanted) / len(union) if union else 0.0
