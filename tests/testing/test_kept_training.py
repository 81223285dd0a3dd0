"""Rows of conversations for trainings whose towers are frozen."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import numpy as np
import pytest

from llmdet.datasets.transforms.objects import MixCandidates
from llmdet.testing.kept_training import learning_rate, sample_of

ROW = {
    "filename": "a.jpg",
    "height": 60,
    "width": 80,
    "regions": [{"bbox": [0, 0, 20, 20]}, {"bbox": [40, 30, 70, 55]}],
    "proposals": [[1, 1, 20, 20, 0.9], [60, 0, 79, 20, 0.8]],
    "conversations": [
        {"from": "human", "value": "Detect red star."},
        {"from": "gpt", "value": "<ground>red star</ground><objects><obj1></objects>"},
    ],
}


def test_a_row_is_what_it_says():
    sample = sample_of(ROW)
    assert sample.grounding.regions.boxes.tolist() == [[0, 0, 20, 20], [40, 30, 70, 55]]
    assert "<obj1>" in sample.grounding.conversations[0].turns[1].text


def test_proposals_that_are_no_region_become_candidates_and_numbers_follow_their_boxes():
    random.seed(0)
    places = set()
    for _ in range(20):
        sample = sample_of(ROW, MixCandidates(most=12).transform)
        boxes, (said,) = sample.grounding.regions.boxes, sample.grounding.conversations
        assert sorted(boxes[:, 0].tolist()) == [0, 40, 60]
        (number,) = re.findall(r"<obj(\d+)>", said.turns[1].text)
        assert np.array_equal(boxes[int(number)], [40, 30, 70, 55])
        places.add(number)
    assert places == {"0", "1", "2"}


def test_the_rate_warms_up_stays_and_falls_almost_to_zero():
    plain = [learning_rate(step, 1000) for step in range(1001)]
    level = [learning_rate(step, 1000, level=0.5) for step in range(1001)]
    assert plain[:100] == level[:100] == [(step + 1) / 100 for step in range(100)]
    assert plain[550] == pytest.approx(0.51)
    assert level[100:501] == [1.0] * 401
    assert level[750] == pytest.approx(0.51)
    assert plain[1000] == pytest.approx(0.02)
    assert level[1000] == pytest.approx(0.02)
    assert all(later <= rate for rate, later in pairwise(level[100:]))
