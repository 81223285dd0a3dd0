"""Models of object indices from checkpoint to number, as users get there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llmdet.cli import evaluate
from llmdet.cli import test as program
from llmdet.engine import build_runner
from llmdet.evaluation.predictions import read_predictions
from llmdet.evaluation.suite import flatten, run_metric
from llmdet.testing.processes import run_processes
from llmdet.testing.region_models import tiny_region_demo
from llmdet.testing.retrieval_benchmarks import write_retrieval_miniature


@pytest.fixture(scope="module")
def command(tmp_path_factory, root):
    """Arguments and options of a test of a tiny model on HumanRef, and the annotations."""
    folder = tmp_path_factory.mktemp("retrieval")
    write_retrieval_miniature("humanref", folder)
    demo = tiny_region_demo(
        folder, root / "configs/rexseek/humanref.py", output={"type": "ObjectIndex", "count": 4}
    )
    checkpoint = torch.load(demo.weights, weights_only=True)
    torch.manual_seed(0)
    for name, values in checkpoint["state_dict"].items():
        if name.endswith(".added"):  # objects and delimiters: so large that they are said
            values.normal_(std=0.15)
    torch.save(checkpoint, demo.weights)
    data = folder / "data" / "humanref"
    options = [
        f"test_dataloader.dataset.data_root={data}/",
        f"test_evaluator.ann_file={data / 'annotations.jsonl'}",
        "test_dataloader.num_workers=0",
        "test_dataloader.persistent_workers=False",
        "test_dataloader.batch_size=3",
        "model.talk.max_new_tokens=24",
    ]
    return [str(demo.config), str(demo.weights)], options, data / "annotations.jsonl"


@pytest.fixture(scope="module")
def tested(command, tmp_path_factory):
    """The work dir and the predictions of one process."""
    folder = tmp_path_factory.mktemp("tested")
    arguments, options, _ = command
    out = ["--out", str(folder / "preds.jsonl"), "--work-dir", str(folder / "work")]
    program.main([*arguments, *out, "--cfg-options", *options])
    return folder / "work", folder / "preds.jsonl"


def measured(work_dir: Path) -> dict[str, float]:
    (path,) = work_dir.glob("*/*.json")
    values = json.loads(path.read_text())
    return {k.partition("/")[2]: v for k, v in values.items() if k.startswith("humanref/")}


def test_a_prediction_file_gives_the_numbers_of_the_test_again(tested, command, capsys):
    work_dir, preds = tested
    report = run_metric("humanref", command[2], preds)
    assert measured(work_dir) == flatten(report.values)
    header, rows = read_predictions(preds)
    assert header.protocol["candidates"] == {"file": "annotations.jsonl", "annotated": True}
    assert {len(row.boxes) for row in rows} == {0, 1}
    assert len({score for row in rows for score in row.scores.tolist()} - {0, 1}) > 1
    arguments = ["--metric", "humanref", "--gt", str(command[2]), "--pred", str(preds)]
    assert evaluate.main(arguments) == 0
    said = capsys.readouterr()
    assert "candidates as annotated, every answer among them: annotations.jsonl" in said.err
    assert "average.density_f1_mean" in said.out


def find(arguments):
    """As the program, in a process that has been started."""
    build_runner(program.prepare(program.parse_args(arguments))).test()


def test_two_processes_find_the_same_as_one(tested, command, tmp_path):
    arguments, options, _ = command
    work_dir, preds = tested
    out = ["--out", str(tmp_path / "preds.jsonl"), "--work-dir", str(tmp_path / "work")]
    run = [*arguments, *out, "--launcher", "pytorch", "--cfg-options", *options]
    run_processes(2, find, run, folder=tmp_path)
    assert measured(tmp_path / "work") == measured(work_dir)
    one, two = (read_predictions(path)[1] for path in (preds, tmp_path / "preds.jsonl"))
    assert [(row.image_id, row.text) for row in one] == [(row.image_id, row.text) for row in two]
    assert [row.boxes.tolist() for row in one] == [row.boxes.tolist() for row in two]
