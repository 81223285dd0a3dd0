"""Region language models from checkpoint to number, as users get there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmdet.cli import test as program
from llmdet.errors import ConfigError
from llmdet.evaluation.predictions import read_predictions
from llmdet.evaluation.suite import run_metric


@pytest.fixture(scope="module")
def command(tiny_regions, tiny_project):
    """What is said to tools/test.py to have the toy set's objects named."""
    file = "annotations/val_seen_coco.json"
    options = [
        f"data_root={tiny_project.data}/",
        f"test_dataloader.dataset.ann_file={file}",
        f"test_evaluator.ann_file={tiny_project.data / file}",
        "test_dataloader.dataset.data_prefix.img=images/",
        "test_dataloader.num_workers=0",
        "test_dataloader.persistent_workers=False",
        "test_dataloader.batch_size=3",
        "test_dataloader.dataset.indices=19",  # the samplers of two processes repeat one
    ]
    arguments = [str(tiny_regions.config), str(tiny_regions.weights)]
    return arguments, options, tiny_project.data / file


def measured(work_dir: Path) -> dict[str, float]:
    (path,) = work_dir.glob("*/*.json")
    values = json.loads(path.read_text())
    return {k.partition("/")[2]: v for k, v in values.items() if k.startswith("coco_cl")}


@pytest.fixture(scope="module")
def tested(command, tmp_path_factory):
    """The work dir and the predictions of one process."""
    folder = tmp_path_factory.mktemp("tested")
    arguments, options, _ = command
    out = ["--out", str(folder / "preds.jsonl"), "--work-dir", str(folder / "work")]
    program.main([*arguments, *out, "--cfg-options", *options])
    return folder / "work", folder / "preds.jsonl"


def test_a_prediction_file_gives_the_numbers_of_the_test_again(tested, command):
    work_dir, preds = tested
    again = run_metric("coco-classification", command[2], preds, ["partial=true"])
    assert measured(work_dir) == again.values
    assert again.values["regions"] == 20
    header, rows = read_predictions(preds)
    assert header.protocol["asked_of"] == {"regions": "boxes", "window": False}
    assert len({row.text for row in rows}) > 1
    assert all(len(row.boxes) == 1 for row in rows)


def test_what_was_predicted_is_not_asked_again(tested, command, tmp_path, monkeypatch):
    """As after an interruption, here behind the last question."""

    def asked(*_: object) -> None:
        raise AssertionError("a question was asked that has its answer")

    monkeypatch.setattr("llmdet.models.systems.region_lmm.RegionLMM.predict", asked)
    arguments, options, _ = command
    work_dir, preds = tested
    out = ["--out", str(preds), "--work-dir", str(tmp_path)]
    program.main([*arguments, *out, "--cfg-options", *options])
    assert measured(tmp_path) == measured(work_dir)


def test_two_processes_predict_the_same_and_lose_and_repeat_nothing(
    tested, command, root, tmp_path
):
    arguments, options, _ = command
    work_dir, preds = tested
    out = ["--out", tmp_path / "preds.jsonl", "--work-dir", tmp_path / "work"]
    run = ["bash", "dist_test.sh", *arguments, "2", *out, "--cfg-options", *options]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": path}
    result = subprocess.run(
        list(map(str, run)), cwd=root, env=variables, capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    assert measured(tmp_path / "work") == measured(work_dir)
    one, two = (read_predictions(path)[1] for path in (preds, tmp_path / "preds.jsonl"))
    assert [(row.image_id, row.text) for row in one] == [(row.image_id, row.text) for row in two]


@pytest.mark.parametrize("option", [["--tta"], ["--dtype", "bfloat16"]])
def test_what_such_a_model_does_not_have_is_one_sentence(command, tmp_path, option):
    with pytest.raises(ConfigError, match="RegionLMM has neither --dtype nor --tta"):
        program.main([*command[0], *option, "--work-dir", str(tmp_path)])
