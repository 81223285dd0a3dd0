"""Expressions are cleaned as they stand in prompts, and mirrored with their pictures."""

import pytest

from llmdet.prompts.expressions import clean_expression, mirror_expression


@pytest.mark.parametrize(
    ("written", "clean"),
    [
        ("  A Brown dog\n on grass. ", "a brown dog on grass"),
        ("a 3.5 m boat", "a 3.5 m boat"),
        (" . ", ""),
    ],
)
def test_an_expression_loses_capitals_blanks_and_the_last_dot(written, clean):
    assert clean_expression(written) == clean


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("the left dog right of a car", "the right dog left of a car"),
        ("the leftmost cup, on the right-hand side", "the rightmost cup, on the left-hand side"),
        ("bright leftovers on a plate", "bright leftovers on a plate"),
    ],
)
def test_sides_change_places_in_a_mirrored_expression(text, mirrored):
    assert mirror_expression(text) == mirrored
    assert mirror_expression(mirrored) == text
