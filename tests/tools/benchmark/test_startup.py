"""The times of whole programs."""

import os
import shlex

import pytest

from llmdet.testing.programs import load_program


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/startup.py")


def test_programs_are_timed_to_their_end(tool, monkeypatch, capsys):
    programs = {
        "train": ["-c", "open('work', 'w')"],
        "torch": ["-c", "open('work'); sum(range(10**6))"],
    }
    monkeypatch.setattr(tool, "prepare", lambda folder: programs)
    assert tool.main(["--repeats", "2", "--only", "torch"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith(f"| torch: `python {shlex.join(programs['torch'])}` | ")
    wall, processor = map(float, row.split("|")[2:4])
    assert 0 < processor <= os.cpu_count() * wall


def test_a_program_that_fails_is_no_time(tool, tmp_path):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        tool.run(["-c", "1 / 0"], str(tmp_path))


def test_every_program_has_its_command(tool, tmp_path):
    assert set(tool.prepare(tmp_path)) == set(tool.PROGRAMS)
