"""Tables of benchmarks."""

from __future__ import annotations

from math import nan

from llmdet.testing.tables import over_seeds, table


def test_seeds_have_a_mean_and_a_deviation():
    assert over_seeds([0.25, 0.75], 100) == "50.0 ± 35.4"
    assert over_seeds([1200.4, 1300.4], digits=0) == "1250 ± 71"
    assert over_seeds([3.0]) == "3.0"


def test_what_was_not_asked_is_empty():
    assert over_seeds([nan, 0.5], 100) == "50.0"
    assert over_seeds([nan]) == over_seeds([]) == ""


def test_a_table_has_a_column_for_its_names():
    lines = table("eye", ["seen", "unseen"], {"alone": ["1.0", "2.0"]})
    assert lines == ["", "| eye | seen | unseen |", "|---|---|---|", "| alone | 1.0 | 2.0 |"]
