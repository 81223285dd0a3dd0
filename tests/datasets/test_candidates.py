"""The best of too many boxes."""

from __future__ import annotations

import numpy as np
import pytest

from llmdet.datasets.candidates import choose_boxes
from llmdet.errors import ConfigError, DataError

SIDES = np.array([3.0, 9, 1, 9, 5])
BOXES = np.stack([SIDES * 0, SIDES * 0, SIDES, SIDES], 1)
SCORES = np.array([0.5, 0.1, 0.9, 0.5, 0.2])


@pytest.mark.parametrize(
    ("rule", "expected"), [("score", [0, 2, 3]), ("area", [1, 3, 4]), ("first", [0, 1, 2])]
)
def test_the_best_are_kept_in_their_order(rule, expected):
    assert choose_boxes(BOXES, 3, rule, SCORES).tolist() == expected


@pytest.mark.parametrize("most", [5, 100])
def test_what_is_not_too_many_needs_no_scores(most):
    assert choose_boxes(BOXES, most).tolist() == [0, 1, 2, 3, 4]
    assert choose_boxes(BOXES[:0], most).tolist() == []


def test_what_cannot_be_chosen_is_named():
    with pytest.raises(DataError, match=r"of 5 boxes the best 3 .* no scores"):
        choose_boxes(BOXES, 3)
    with pytest.raises(DataError, match="5 boxes have 4 scores"):
        choose_boxes(BOXES, 3, scores=SCORES[1:])
    with pytest.raises(ConfigError, match="'size'; known: score"):
        choose_boxes(BOXES, 3, "size")
