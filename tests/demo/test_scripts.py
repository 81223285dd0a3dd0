"""The quickstart's scripts fail when a part of them fails."""

import os
import subprocess


def run(root, script, *arguments, **variables):
    return subprocess.run(
        ["bash", root / "demo" / script, *map(str, arguments)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_measurement_that_fails_fails_the_script_and_shows_its_log(root, tmp_path):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\ncase "$*" in *val_unseen*) echo broken; exit 3;; esac\n')
    stub.chmod(0o755)
    result = run(root, "measure.sh", "CONFIG", "CHECKPOINT", tmp_path / "new", python=str(stub))
    assert result.returncode == 1
    assert "measuring val_unseen failed" in result.stderr
    assert "broken" in result.stderr
    assert "val_seen failed" not in result.stderr


def test_a_measurement_of_both_splits_succeeds(root, tmp_path):
    result = run(root, "measure.sh", "CONFIG", "CHECKPOINT", tmp_path / "new", python="true")
    assert result.returncode == 0
    assert (tmp_path / "new" / "val_seen.log").is_file()


def test_unknown_arguments_are_answered_with_the_usage(root, tmp_path):
    measure, quickstart = run(root, "measure.sh"), run(root, "quickstart.sh", "--help")
    assert measure.returncode == quickstart.returncode == 2
    assert "measure.sh CONFIG CHECKPOINT WORK_DIR" in measure.stderr
    assert "quickstart.sh [--short]" in quickstart.stderr
