"""What answers of a model that names candidates come to."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from statistics import mean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: "unseen" asks for one kind that training never shows, "several" for two that it does; "falsely
#: rejected" is a share of all that is there, and what follows the same of parts of it; "trained"
#: are known kinds and relations.
COLUMNS = (
    "detect P",
    "detect R",
    "unseen P",
    "unseen R",
    "several P",
    "several R",
    "relate DF1",
    "absent rejected",
    "empty relation rejected",
    "falsely rejected",
    "trained rejected",
    "known kinds rejected",
    "unseen kinds rejected",
    "relations rejected",
)


def scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Values of :data:`COLUMNS` in percent, at an overlap of 0.5; a share of nothing is NaN."""
    from llmdet.evaluation.humanref import REJECTION, HumanRefRecord, humanref_scores

    groups = {"absent": REJECTION, "refuse": REJECTION}
    records = [
        HumanRefRecord(
            id=number,
            domain=groups.get(row["task"], f"{row['task']}{' unseen' if row['unseen'] else ''}"),
            subdomain=row["task"],
            answers=as_boxes(row["meant"]),
            persons=0,
        )
        for number, row in enumerate(rows)
    ]
    found = {number: row["found"] for number, row in enumerate(rows)}
    domains = humanref_scores(records, found)["domain"]
    there = [(_part(row), not row["found"]) for row in rows if row["meant"]]
    values = {"falsely rejected": _share([missed for _, missed in there])}
    for part in ("known kinds", "unseen kinds", "relations"):
        values[f"{part} rejected"] = _share([missed for of, missed in there if of == part])
    trained = [missed for of, missed in there if of != "unseen kinds"]
    values["trained rejected"] = _share(trained)
    for task, name in (("absent", "absent"), ("refuse", "empty relation")):
        refused = [not row["found"] for row in rows if row["task"] == task]
        values[f"{name} rejected"] = _share(refused)
    for domain, name in (("detect", "detect"), ("detect unseen", "unseen"), ("several", "several")):
        for key, letter in (("precision_50", "P"), ("recall_50", "R")):
            values[f"{name} {letter}"] = 100 * domains.get(domain, {}).get(key, 0.0)
    values["relate DF1"] = 100 * domains.get("relate", {}).get("density_f1_50", 0.0)
    return {name: values[name] for name in COLUMNS}


def _part(row: dict[str, Any]) -> str:
    """What is asked for, as false rejections are told apart."""
    if row["task"] == "relate":
        return "relations"
    return "unseen kinds" if row["unseen"] else "known kinds"


def _share(values: Sequence[bool]) -> float:
    return 100 * mean(values) if values else nan


def as_boxes(values: Any) -> np.ndarray:
    """[N, 4] float32 xyxy, without what stands behind."""
    import numpy as np

    return np.array([row[:4] for row in values], np.float32).reshape(-1, 4)
