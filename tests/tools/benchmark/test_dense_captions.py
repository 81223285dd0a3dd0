"""The benchmark of the check of dense captions runs, and its sentences are what they are called."""

from pathlib import Path

import pytest

from llmdet.chat import Pace
from llmdet.data_engines.detections import Found
from llmdet.datasets.toy import ToySettings, generate
from llmdet.testing.programs import load_program

NAMES = ["blue circle", "blue ring", "red circle", "red ring", "red star", "white star"]


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/dense_captions.py")


def test_false_sentences_are_of_a_wrong_colour_or_a_wrong_shape(tool) -> None:
    said = tool.sentences("a.jpg", ["red circle", "red circle", "red ring"], NAMES)
    kinds = {kind: {name for name, each in said if each == kind} for _, kind in said}
    assert kinds[tool.TRUE] == {"red circle", "red ring"}
    assert kinds[tool.COLOUR] == {"blue circle", "blue ring"}
    assert kinds[tool.SHAPE] == {"red star", "white star"}
    assert tool.sentences("a.jpg", ["red circle", "red ring"], NAMES) == said


def test_a_detector_that_is_always_right_keeps_what_is_true_alone(tool, tmp_path: Path) -> None:
    root = generate(tmp_path / "toy", ToySettings(train=1, val=1, size=48))
    (picture,) = (root / "images" / "val_seen").iterdir()
    said = [("red circle", tool.TRUE), ("blue circle", tool.COLOUR), ("white star", tool.SHAPE)]

    class Right:
        pace, identity = Pace(1), {}

        def answer(self, requests):
            there = "red circle"
            return [
                [Found([0, 0, 9, 9], there, 0.9)] if there in request.phrases else []
                for request in requests
            ]

    kept = tool.count_kept(picture.parent, {picture.name: said}, Right())
    assert kept == {tool.TRUE: 1}


def test_a_row_is_printed_for_each_threshold(tool, tiny, tmp_path: Path, capsys) -> None:
    root = generate(tmp_path / "toy", ToySettings(train=1, val=2, size=48))
    command = [str(tiny.config), str(tiny.weights), str(root), "--images", "1"]
    tool.main([*command, "--thresholds", "0", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 pictures")
    assert [line.split()[0] for line in lines[2:]] == ["0.00", "1.00"]
    assert set(lines[2].split()[1:]) == {"100.0"}
    assert set(lines[3].split()[1:]) == {"0.0"}
