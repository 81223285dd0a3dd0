"""The benchmark of rows of unlike lengths."""

from __future__ import annotations

import re

from llmdet.testing.programs import load_program


def test_both_ways_come_to_the_same_losses(root, capsys):
    benchmark = load_program(root / "tools" / "benchmark" / "row_groups.py")
    words = "--rows 4 --shortest 5 --longest 400 --width 16 --layers 1 --repeat 2"
    assert benchmark.main(words.split()) == 0
    said = capsys.readouterr().out
    assert float(re.search(r"at most (\S+)", said)[1]) < 1e-5
    assert float(re.search(r"groups: (\S+);", said)[1]) > 1
