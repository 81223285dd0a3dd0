"""The detector equals the original program, stage by stage."""

import subprocess
import sys

import pytest

from llmdet.testing.parity import detection, losses
from llmdet.testing.parity.rows import compare_number, compare_recorded

KINDS = {"detector_eval": detection, "detector_loss": losses}


def failures(rows):
    rows = list(rows)
    assert rows
    return [row for row in rows if not row.passed]


@pytest.mark.parametrize("kind", KINDS)
def test_the_detector_equals_the_original(kind, root):
    assert not failures(KINDS[kind].check(root / "tests/golden/llmdet" / kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_detector_equals_the_original_on_full_recordings(kind, golden):
    assert not failures(KINDS[kind].check(golden / "llmdet/public" / kind))


def test_a_difference_is_found_and_reported_by_name(root, tmp_path):
    folder = root / "tests/golden/llmdet/detector_eval"
    for item in folder.iterdir():
        (tmp_path / item.name).symlink_to(item)
    config = tmp_path / "model_config.json"
    text = config.read_text().replace('"temperature": 20', '"temperature": 21')
    config.unlink()
    config.write_text(text)
    tool = root / "tools/analysis/parity.py"
    run = subprocess.run(
        [sys.executable, tool, "--failed", tmp_path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "FAIL   a/encoder.memory" in run.stdout
    assert "FAIL   a/neck.0" not in run.stdout


def test_a_folder_without_recording_is_named(root, tmp_path):
    tool = root / "tools/analysis/parity.py"
    run = subprocess.run(
        [sys.executable, tool, tmp_path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert str(tmp_path) in run.stderr


def test_names_of_recorded_tensors_select_call_and_part():
    import torch

    tensor = torch.arange(24.0).view(2, 12)
    recorded = {"stage#1.x[:, ::4]": tensor[:, ::4], "stage.x": tensor, "y[..., :n]": tensor[:, :5]}
    calls = []

    def find(name, call):
        calls.append((name, call))
        return tensor

    assert not failures(compare_recorded(recorded, find))
    assert calls == [("stage.x", 1), ("stage.x", 0), ("y", 0)]


def test_a_missing_gradient_is_a_difference():
    assert not compare_number("norm", 0.5, None).passed
    assert compare_number("norm", None, 0.0).passed
