"""The benchmark of the training step."""

from __future__ import annotations

import pytest
import torch

from llmdet.testing.programs import load_program


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/train_step.py")


def test_the_ways_of_the_original_cost_time_and_change_no_loss(tool, capsys):
    options = "--repeats 1 --height 96 --width 96 --like upstream --device cpu --threads 1"
    assert tool.main(options.split()) == 0
    rows = {
        words[0]: words[1:]
        for words in map(str.split, capsys.readouterr().out.splitlines())
        if len(words) == 3
    }
    for part in ("backbone", "encoder", "decoder", "matcher", "backward", "optimizer", "step"):
        assert all(float(value) > 0 for value in rows[part]), part
    ours, upstream = map(float, rows["loss"])
    assert ours == pytest.approx(upstream, rel=1e-5)


def test_a_compiled_step_comes_to_the_same_losses(tool, capsys, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # which takes long
    options = "--repeats 1 --height 96 --width 96 --compile eager --device cpu --threads 1"
    assert tool.main(options.split()) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    ours, compiled = map(float, next(row[1:] for row in rows if row[:1] == ["loss"]))
    assert ours == pytest.approx(compiled, rel=1e-5)
    assert [row[1:] for row in rows if row[:1] == ["seconds"]] == [["ours", "compiled"]]


def test_a_part_inside_another_counts_for_itself_alone(tool, monkeypatch):
    now = iter([0.0, 1.0, 3.0, 10.0])
    clock = tool.Clock("cpu")
    monkeypatch.setattr(clock, "_now", lambda: next(now))
    with clock.part("outer"), clock.part("inner"):
        pass
    assert dict(clock.seconds) == {"inner": 2.0, "outer": 8.0}
