"""Trainings of one config in several precisions, at a size of seconds."""

import re

import pytest

from llmdet.testing.programs import load_program


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/precision.py")


def test_each_precision_is_trained_and_validated_with_each_seed(tool, tiny_project, capsys):
    words = ["--iterations", "2", "--seeds", "1", "--precisions", "float32", "float16"]
    assert tool.main([str(tiny_project.config), *words]) == 0
    said = capsys.readouterr().out
    losses = re.findall(r"^(float\d\d) +0 +0\.\d{3} +(\d+\.\d+) ", said, re.MULTILINE)
    (first, plain), (second, half) = losses
    assert (first, second) == ("float32", "float16")
    assert float(half) == pytest.approx(float(plain), rel=0.05)
    assert "| coco/bbox_mAP | seed 0 | mean | loss |" in said


def test_the_table_has_the_mean_over_seeds(tool):
    runs = [
        tool.Outcome(precision, seed, metric, 2.0, 0, 0.1)
        for precision, metrics in (("float32", (0.5, 0.7)), ("bfloat16", (0.6, 0.5)))
        for seed, metric in enumerate(metrics)
    ]
    assert tool.table(runs, "AP").splitlines()[2:] == [
        "| float32 | 0.500 | 0.700 | 0.600 | 2.00 |",
        "| bfloat16 | 0.600 | 0.500 | 0.550 | 2.00 |",
    ]
