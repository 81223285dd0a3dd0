"""The benchmark of the caption loss."""

from __future__ import annotations

import pytest

from llmdet.testing.programs import load_program


@pytest.fixture
def benchmark(root):
    return load_program(root / "tools" / "benchmark" / "lm_loss.py")


def test_both_ways_compute_the_same_loss(benchmark):
    words = "--batch 2 --tokens 12 --supervised 4 --width 8 --vocabulary 50 --repeat 1"
    sizes = vars(benchmark.parse_args(words.split()))
    everywhere, ours = (benchmark.measure(way, "cpu", sizes) for way in ("all", "supervised"))
    assert ours["loss"] == pytest.approx(everywhere["loss"], rel=1e-5)
    assert ours["ms"] > 0
