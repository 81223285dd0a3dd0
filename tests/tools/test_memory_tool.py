"""memory.py prints a budget, and compares it with a step."""

import re
from pathlib import Path

import pytest

from llmdet.errors import ConfigError
from llmdet.testing.programs import load_program

TOOL = Path(__file__).parents[2] / "tools/analysis/memory.py"
SMALL = ("--height", "96", "--width", "128", "--boxes", "4", "--strategy", "zero-2")


def test_the_prompt_fits_and_a_step_is_measured(tiny_project, capsys):
    load_program(TOOL).main([str(tiny_project.config), *SMALL, "--measure"])
    shown = capsys.readouterr().out
    assert "zero-2 on 8 GPUs" in shown
    (difference,) = re.findall(r"were calculated \((.*) %\)", shown)
    assert abs(float(difference)) < 10


def test_classes_that_do_not_fit_are_named(tiny_project):
    with pytest.raises(ConfigError, match="--classes 400: their prompt has more tokens than"):
        load_program(TOOL).main([str(tiny_project.config), *SMALL, "--classes", "400"])
