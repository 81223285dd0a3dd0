"""Candidates out of proposals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from llmdet.testing.toy_proposals import Proposer


class Scripted:
    """A detector that finds what it is told to."""

    def __init__(self, *scores):
        self.scores = scores

    def predict(self, paths, **options):
        assert len(paths) == len(self.scores)
        return [
            SimpleNamespace(
                boxes=np.arange(4 * len(each), dtype=np.float32).reshape(-1, 4),
                scores=np.array(each, np.float32),
            )
            for each in self.scores
        ]


def test_candidates_are_the_best_boxes_that_come_near_the_best_score():
    proposer = Proposer(Scripted([0.5, 0.25, 0.0625], [0.5, 0.5, 0.5], []))
    kept = proposer.best(Path("images"), ["a.jpg", "b.jpg", "c.jpg"], most=2)
    assert kept == {
        "a.jpg": [[0, 1, 2, 3, 0.5], [4, 5, 6, 7, 0.25]],
        "b.jpg": [[0, 1, 2, 3, 0.5], [4, 5, 6, 7, 0.5]],
        "c.jpg": [],
    }
    assert len(proposer.best(Path("images"), ["a.jpg", "b.jpg", "c.jpg"], most=9)["a.jpg"]) == 2
