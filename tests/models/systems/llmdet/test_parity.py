"""The original's caption losses, gradients and everything on the way to them."""

from __future__ import annotations

from pathlib import Path

import pytest

RECORDED = Path(__file__).parents[3] / "golden" / "llmdet" / "lmm_loss"


def failed_rows(folder):
    from llmdet.testing.parity.captions import check

    rows = list(check(folder))
    assert len(rows) > 1000
    return [(row.name, row.max_abs, row.note) for row in rows if not row.passed]


@pytest.mark.slow
def test_a_training_step_equals_the_recorded_one():
    assert failed_rows(RECORDED) == []


@pytest.mark.slow
def test_every_recorded_variant_is_equal(golden):
    assert failed_rows(golden / "llmdet" / "public" / "lmm_loss") == []
