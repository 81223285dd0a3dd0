"""Naming given regions: accuracy of class scores, and word overlap of free text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmdet.datasets.coco_file import CocoFile
from llmdet.errors import DataError
from llmdet.evaluation.phrase_similarity import phrase_similarity
from llmdet.prompts.objects import ObjectGrammar
from llmdet.utils.files import require

TOPK = (1, 5, 10)


def named_regions(
    data: Mapping[str, Any], where: str
) -> tuple[list[Mapping[str, Any]], np.ndarray, list[str]]:
    """Regions with ``image_id`` of a file, the label of each, and the names of all labels.

    Args:
        data: ``{categories: names, regions: [{image_id, label}]}``, or annotations of COCO's form
            (LVIS, PACO), whose regions are all objects but crowds.
        where: the file.
    """
    if "annotations" not in data:
        regions = require(dict(data), "regions", where)
        labels = [require(region, "label", f"{where}: region") for region in regions]
        return regions, np.asarray(labels), require(dict(data), "categories", where)
    file = CocoFile.parse(data, where)
    label_of = {category["id"]: label for label, category in enumerate(file.categories)}
    regions = [each for each in file.annotations if not each.get("iscrowd")]
    labels = [label_of[region["category_id"]] for region in regions]
    return regions, np.asarray(labels), [str(category["name"]) for category in file.categories]


def name_in(answer: str) -> str:
    """The name that an answer gives to a region: of one with marks of objects, its phrase."""
    phrases = ObjectGrammar().parse(answer).phrases
    return phrases[0].phrase if phrases else answer


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


def semantic_similarity(answers: Sequence[str], names: Sequence[str], encoder: str) -> float:
    """Mean cosine of the sentence vectors of answers and class names, cleaned likewise.

    Args:
        answers: free text, one per region.
        names: right class names.
        encoder: of sentences, see :func:`phrase_similarity`.
    Source: Osprey (Yuan et al. 2024, section 4.1).
    """
    said, wanted = list(map(clean_answer, answers)), list(map(clean_name, names))
    return float(phrase_similarity(said, wanted, encoder).mean())


def clean_answer(answer: str) -> str:
    """An answer as words: of one with colons the part between the first and the second."""
    answer = answer.strip()
    if ":" in answer:
        answer = answer.split(":")[1]
    return " ".join(answer.replace(".", " ").replace(",", " ").lower().split())


def clean_name(name: str) -> str:
    """A class name as words."""
    return " ".join(name.replace("_", " ").replace(":", " ").lower().split())


def _word_iou(answer: str, name: str) -> float:
    said, wanted = set(clean_answer(answer).split()), set(clean_name(name).split())
    union = said | wanted
    return len(said & wanted) / len(union) if union else 0.0
