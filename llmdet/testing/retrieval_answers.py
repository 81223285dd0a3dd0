"""What answers of a model that names candidates come to."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from statistics import mean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_VALUES = {"P": "precision_50", "R": "recall_50", "DF1": "density_f1_50"}
_MEASURED = {"detect": ("P", "R"), "several": ("P", "R"), "relate": ("DF1",)}
#: What was found; "unseen" is about a combination that training never shows.
FOUND = tuple(
    f"{group}{task} {value}"
    for group in ("", "unseen ")
    for task, values in _MEASURED.items()
    for value in values
)
#: What was rejected: absent kinds and sides on which nothing stands, as they should be; all that is
#: there, and parts of it: of combinations that training shows, and of others.
REJECTED = (
    "absent kinds",
    "empty sides",
    "all that is there",
    "trained",
    "trained kinds",
    "trained relations",
    "unseen kinds",
    "unseen relations",
)


def scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Values of :data:`FOUND`, at an overlap of 0.5, and :data:`REJECTED` in percent.

    Those of nothing are NaN.
    """
    from llmdet.evaluation.humanref import HumanRefRecord, humanref_scores

    records = [
        HumanRefRecord(
            id=number,
            domain=f"{'unseen ' if row['unseen'] else ''}{row['task']}",
            subdomain=row["task"],
            answers=as_boxes(row["meant"]),
            persons=0,
        )
        for number, row in enumerate(rows)
        if row["meant"]
    ]
    found = {number: row["found"] for number, row in enumerate(rows)}
    domains = humanref_scores(records, found)["domain"]
    values = {}
    for name in FOUND:
        group, _, value = name.rpartition(" ")
        values[name] = 100 * domains.get(group, {}).get(_VALUES[value], nan)
    return values | _rejected(rows)


def _rejected(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Title of :data:`REJECTED` -> share of its searches that were answered with nothing."""
    groups: dict[str, list[bool]] = {name: [] for name in REJECTED}
    empty = {"absent": "absent kinds", "refuse": "empty sides"}
    for row in rows:
        if row["meant"]:
            what = "relations" if row["task"] == "relate" else "kinds"
            parts = [f"unseen {what}"] if row["unseen"] else ["trained", f"trained {what}"]
            titles = ["all that is there", *parts]
        else:
            titles = [empty[row["task"]]]
        for title in titles:
            groups[title].append(not row["found"])
    return {title: _share(missed) for title, missed in groups.items()}


def _share(values: Sequence[bool]) -> float:
    return 100 * mean(values) if values else nan


def as_boxes(values: Any) -> np.ndarray:
    """[N, 4] float32 xyxy, without what stands behind."""
    import numpy as np

    return np.array([row[:4] for row in values], np.float32).reshape(-1, 4)
