"""Models that answer with masks from checkpoint to number, as users get there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmdet.cli import test as program
from llmdet.datasets.toy.models import tiny_bert
from llmdet.evaluation.predictions import read_predictions
from llmdet.evaluation.suite import flatten, run_metric
from llmdet.testing.mask_benchmarks import write_mask_miniature
from llmdet.testing.region_models import tiny_region_demo

SETS = "test_dataloader.dataset.sets"


@pytest.fixture(scope="module")
def project(tmp_path_factory, root):
    """A folder with data and a tiny model that says masks now and then."""
    folder = tmp_path_factory.mktemp("masks")
    for benchmark in ("gcg", "refcoco_masks"):
        write_mask_miniature(benchmark, folder)
    tiny_region_demo(folder, masks=True)
    tiny_bert(folder / "bert")
    return folder


def command(project, root, name):
    """A config of a benchmark for the project's model, and what is said to tools/test.py."""
    config = project / f"{name}.py"
    bases = [
        root / "configs/_base_" / part for part in ("default_runtime.py", f"datasets/{name}.py")
    ]
    config.write_text(f"_base_ = {[*map(str, bases), str(project / 'config.py')]}\n")
    options = ["test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
    return [str(config), str(project / "weights.pth")], options


def measured(work_dir: Path) -> dict[str, float]:
    (path,) = work_dir.glob("*/*.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def tested(project, root, tmp_path_factory):
    """Numbers and predictions of referring masks by one process."""
    folder = tmp_path_factory.mktemp("tested")
    arguments, options = command(project, root, "referring_masks")
    out = ["--out", str(folder / "preds.jsonl"), "--work-dir", str(folder / "work")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        program.main([*arguments, *out, "--cfg-options", *options])
    return measured(folder / "work"), folder / "preds"


def test_a_prediction_file_gives_the_numbers_of_the_test_again(tested, project):
    values, preds = tested
    truth = project / "data/coco/masks/refcoco_val.jsonl"
    again = run_metric("res", truth, preds / "refcoco_val.jsonl").values
    assert again == {k: v for k, v in again.items() if values[f"refcoco_val/res/{k}"] == v}
    assert 0 <= again["gIoU"] < 1
    header, rows = read_predictions(preds / "refcoco_val.jsonl")
    assert header.protocol["asked_of"] == {"history": False, "answers": "generated"}
    assert len(rows) == 2
    assert any(row.masks for row in rows)
    assert all(len(row.masks) == row.text.count("[SEG]") == len(row.phrases) for row in rows)
    assert not any(len(row.boxes) for row in rows)  # what is asked for was not shown


def test_given_answers_are_a_protocol_of_their_own(tested, project, root, tmp_path, monkeypatch):
    monkeypatch.chdir(project)
    arguments, options = command(project, root, "referring_masks")
    shown = [f"{SETS}.{split}.answers=given" for split in ("refcoco_val", "refcocog_test")]
    out = ["--out", str(tmp_path / "preds.jsonl"), "--work-dir", str(tmp_path / "work")]
    program.main([*arguments, *out, "--cfg-options", *options, *shown])
    header, rows = read_predictions(tmp_path / "preds/refcoco_val.jsonl")
    assert header.protocol["asked_of"]["answers"] == "given"
    assert [(row.text, len(row.masks)) for row in rows] == [("It is [SEG].", 1)] * 2
    values = measured(tmp_path / "work")
    assert values["refcoco_val/res/without_mask"] == 0
    same = [k for k in values if k.startswith("refcoco_testA/res")]
    assert {k: values[k] for k in same} == {k: tested[0][k] for k in same}


def test_two_processes_say_the_same_and_lose_and_repeat_nothing(tested, project, root, tmp_path):
    arguments, options = command(project, root, "referring_masks")
    out = ["--out", tmp_path / "preds.jsonl", "--work-dir", tmp_path / "work"]
    run = ["bash", root / "dist_test.sh", *arguments, "2", *out, "--cfg-options", *options]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": path}
    result = subprocess.run(
        list(map(str, run)), cwd=project, env=variables, capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    numbers = {k: v for k, v in tested[0].items() if "/res/" in k}
    assert {k: v for k, v in measured(tmp_path / "work").items() if "/res/" in k} == numbers
    for split in ("refcoco_val", "refcocog_test"):
        rows = [read_predictions(p / f"{split}.jsonl")[1] for p in (tested[1], tmp_path / "preds")]
        one, two = ([(row.image_id, row.text, row.masks) for row in each] for each in rows)
        assert one == two


def test_grounded_captions_give_the_same_numbers_from_their_files(
    project, root, tmp_path, monkeypatch
):
    monkeypatch.chdir(project)
    arguments, options = command(project, root, "gcg")
    metrics = "test_evaluator.metrics"
    said = [
        f"{metrics}.{split}.{option}"
        for split in ("val", "test")
        for option in ("captions=False", "text_encoder=bert")
    ]
    out = ["--out", str(tmp_path / "preds.jsonl"), "--work-dir", str(tmp_path / "work")]
    program.main([*arguments, *out, "--cfg-options", *options, *said])
    values = measured(tmp_path / "work")
    truth = project / "data/grandf/GranDf/annotations/val_test/val_gcg_coco_caption_gt.json"
    options = ["captions=false", f"text_encoder={project / 'bert'}"]
    again = run_metric("gcg", truth, tmp_path / "preds/val.jsonl", options)
    found = flatten(again.values)
    assert found == {k: values[f"val/gcg/{k}"] for k in found}
    assert {"mask_AP.AP50", "mIoU", "mask_recall", "strict.mIoU", "strict.mask_recall"} <= set(
        found
    )
    assert (
        "interleaved segmentation"
        in again.predictions["header"]["protocol"]["asked_of"]["question"]
    )
