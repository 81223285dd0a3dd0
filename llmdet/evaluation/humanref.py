"""HumanRef: referring to people, with a factor that punishes boxing everybody."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmdet.errors import DataError
from llmdet.evaluation.boxes import pairwise_iou
from llmdet.utils.files import read_jsonl, require

THRESHOLDS = np.arange(0.5, 1.0, 0.05)
REJECTION = "rejection"  # domain of the expressions that nobody answers to
BOX_COUNTS = ((1, 1, "1"), (2, 5, "2-5"), (6, 10, "6-10"), (11, None, ">10"))

Density = Literal["answers", "persons"]


@dataclasses.dataclass(frozen=True)
class HumanRefRecord:
    """One expression about people of an image."""

    id: int
    domain: str
    subdomain: str
    answers: np.ndarray  # [N, 4] xyxy
    persons: int  # people in the image


def read_humanref(path: str | Path) -> list[HumanRefRecord]:
    """HumanRef's annotations, one JSON object a line."""
    records = []
    for number, record in read_jsonl(path):
        where = f"{path}:{number}"
        records.append(
            HumanRefRecord(
                id=require(record, "id", where),
                domain=require(record, "domain", where),
                subdomain=require(record, "sub_domain", where),
                answers=_boxes(require(record, "answer_boxes", where)),
                persons=len(require(record, "candidate_boxes", where)),
            )
        )
    return records


def read_humanref_predictions(path: str | Path) -> dict[int, list[Any]]:
    """Predicted boxes (xyxy) by record id from ``{id, extracted_predictions}`` lines.

    Raises:
        DataError: a prediction is no box; points, which RexSeek's program takes too, are none.
    """
    predictions = {}
    for number, record in read_jsonl(path):
        where = f"{path}:{number}"
        boxes = require(record, "extracted_predictions", where)
        for box in boxes:
            if not isinstance(box, list) or len(box) not in (0, 4):
                raise DataError(
                    f"{where}: extracted_predictions has {json.dumps(box)}; a box is four numbers "
                    "(x1, y1, x2, y2), and points are not scored"
                )
        predictions[require(record, "id", where)] = boxes
    return predictions


def humanref_scores(
    records: Sequence[HumanRefRecord],
    predictions: Mapping[int, Sequence[Any]],
    *,
    density: Density = "answers",
) -> dict[str, Any]:
    """Recall, precision and density F1 over all records and by domain, subdomain and count.

    A record without predictions counts as empty. ``average`` is the plain mean over domains, as the
    published tables have it. ``rejection_score_count`` is the number of expressions without answer
    that got no box, out of ``rejection_total``, and ``rejection_score`` their share (-1 of none).

    Args:
        records: annotations.
        predictions: by record id.
        density: the factor of density F1 is min(1, answers / predictions), as the official
            program computes, or min(1, persons / predictions), as its README says.
    Source: RexSeek (Jiang et al. 2025, section 4.3) and its program.
    """
    rows: dict[int, np.ndarray] = {}
    refused, total = 0, 0
    for record in records:
        predicted = list(predictions.get(record.id, []))
        if record.domain == REJECTION:
            total += 1
            refused += predicted in ([], [[]])
            continue
        rows[record.id] = _score(record, predicted, density)
    kept = [record for record in records if record.id in rows]
    domains = _grouped(kept, rows, lambda record: record.domain)
    return {
        "average": _mean_of(list(domains.values())),
        "overall": {**_means(kept, rows), "count": len(kept)},
        "domain": domains,
        "subdomain": _grouped(kept, rows, lambda record: record.subdomain),
        "box_count": _grouped(kept, rows, _count_name),
        "rejection_score": refused / total if total else -1.0,
        "rejection_score_count": refused,
        "rejection_total": total,
    }


def _score(record: HumanRefRecord, predicted: list[Any], density: Density) -> np.ndarray:
    """Recall, precision and density F1 at each threshold: [3, T]."""
    total = len(predicted)
    boxes = _boxes([box for box in predicted if box])
    hits = _hits(pairwise_iou(record.answers, boxes))
    answers = len(record.answers)
    recall = hits / answers if answers else np.zeros(len(THRESHOLDS))
    precision = hits / total if total else np.zeros(len(THRESHOLDS))
    both = recall + precision
    f1 = np.divide(2 * recall * precision, both, out=np.zeros_like(both), where=both > 0)
    reference = answers if density == "answers" else record.persons
    factor = min(1.0, reference / total) if total else 0.0
    return np.stack([recall, precision, f1 * factor])


def _hits(iou: np.ndarray) -> np.ndarray:
    """Matches at each threshold when answers in file order take their best free prediction: [T]."""
    counts = np.zeros(len(THRESHOLDS))
    for index, threshold in enumerate(THRESHOLDS):
        free = iou.copy()
        for row in range(free.shape[0] if free.shape[1] else 0):
            best = int(np.argmax(free[row]))
            if free[row, best] >= threshold:
                counts[index] += 1
                free[:, best] = -1
    return counts


def _means(records: Sequence[HumanRefRecord], rows: Mapping[int, np.ndarray]) -> dict[str, float]:
    values = np.stack([rows[record.id] for record in records]) if records else np.zeros((1, 3, 1))
    result = {}
    for index, name in enumerate(("recall", "precision", "density_f1")):
        result[f"{name}_50"] = float(values[:, index, 0].mean())
        result[f"{name}_mean"] = float(values[:, index].mean())
    return result


def _mean_of(groups: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of groups, whatever their sizes."""
    names = [name for group in groups[:1] for name in group if name != "count"]
    return {name: sum(group[name] for group in groups) / len(groups) for name in names}


def _grouped(
    records: Sequence[HumanRefRecord], rows: Mapping[int, np.ndarray], key: Any
) -> dict[str, dict[str, float]]:
    groups: dict[str, list[HumanRefRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {
        name: {**_means(group, rows), "count": len(group)} for name, group in sorted(groups.items())
    }


def _count_name(record: HumanRefRecord) -> str:
    count = len(record.answers)
    for low, high, name in BOX_COUNTS:
        if low <= count and (high is None or count <= high):
            return name
    return "0"


def _boxes(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(-1, 4)
