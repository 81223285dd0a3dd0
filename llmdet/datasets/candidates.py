"""Which of an image's boxes a model is shown that reads a limited number of them."""

from __future__ import annotations

import numpy as np

from llmdet.errors import ConfigError, DataError

#: "score": the highest scores; "area": the largest; "first": as they stand.
RULES = ("score", "area", "first")


def choose_boxes(
    boxes: np.ndarray, most: int, rule: str = "score", scores: np.ndarray | None = None
) -> np.ndarray:
    """Positions of the boxes that are shown, all of them where there are not too many.

    Args:
        boxes: [N, 4] xyxy.
        most: how many may be shown.
        rule: one of :data:`RULES`, by which the best are chosen.
        scores: [N] of the boxes.

    Returns:
        [min(N, most)] int64, rising; of equally good boxes, the first.

    Raises:
        ConfigError: the rule does not exist.
        DataError: there are too many boxes, and no scores to choose by; or scores of others.
    """
    if rule not in RULES:
        raise ConfigError(f"boxes cannot be chosen by {rule!r}; known: {', '.join(RULES)}")
    if scores is not None and len(scores) != len(boxes):
        raise DataError(f"{len(boxes)} boxes have {len(scores)} scores; give one for each")
    if len(boxes) <= most or rule == "first":
        return np.arange(min(len(boxes), most))
    if rule == "area":
        goodness = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    elif scores is None:
        raise DataError(
            f"of {len(boxes)} boxes the best {most} can be shown, but they have no scores: give "
            "scores, fewer boxes, or choose by 'area' or 'first'"
        )
    else:
        goodness = np.asarray(scores)
    return np.sort(np.argsort(-goodness, kind="stable")[:most])


def overlapping(boxes: np.ndarray, others: np.ndarray, least: float) -> np.ndarray:
    """Which of some boxes are the same thing as one of the others.

    Args:
        boxes: [N, 4] xyxy.
        others: [M, 4] xyxy.
        least: IoU from which on two boxes are the same thing.

    Returns:
        [N] bool.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (high - low).clip(min=0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).clip(min=0).prod(1) for each in (boxes, others)]
    union = areas[0][:, None] + areas[1] - shared
    return (shared / np.maximum(union, 1e-9) >= least).any(1)
