"""Scores of referring expressions that name a place ("the left dog")."""

from __future__ import annotations

import re

from torch import Tensor

#: Word -> (axis, sign): 0 for x, 1 for y; +1 prefers large coordinates (right, bottom).
POSITION_WORDS = {
    "left": (0, -1),
    "right": (0, 1),
    "top": (1, -1),
    "upper": (1, -1),
    "under": (1, 1),
    "bottom": (1, 1),
}
_BASE, _SLOPE = 1.0, 0.7  # of the original LLMDet


def position_boost(
    expression: str, boxes: Tensor, scores: Tensor, image_size: tuple[int, int]
) -> Tensor:
    """Add to each box's score how far it lies in the direction that the expression names.

    This is an evaluation protocol of the original LLMDet for RefCOCO, not detection, and off by
    default; report results with and without it. For each direction among the expression's words
    (left, right, top or upper, under or bottom) ``1 + 0.7 * position`` is added, the position
    of the box centre being 0 at the opposite border of the image and 1 at the named one. Whole
    words only: "bright" does not say "right" (the original matched substrings).

    Args:
        expression: the referring expression.
        boxes: [N, 4] xyxy in pixels of the image.
        scores: [N].
        image_size: (height, width) of the image in pixels.

    Returns:
        [N] scores, in the order given and no longer probabilities. Sort boxes, labels and query
        indices along with them.
    """
    height, width = image_size
    said = set(re.findall(r"[^\W_]+", expression.lower()))
    boosted = scores
    for axis, sign in sorted({POSITION_WORDS[word] for word in said & POSITION_WORDS.keys()}):
        centre = (boxes[:, axis] + boxes[:, axis + 2]) / 2 / (height if axis else width)  # [N]
        boosted = boosted + _BASE + _SLOPE * (centre if sign > 0 else 1 - centre)
    return boosted
