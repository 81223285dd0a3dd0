"""Training and evaluation on real photographs, with two processes, as a user starts them."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from llmdet.evaluation.predictions import read_predictions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA"),
]
CONFIG = "configs/finetune/raccoon.py"


@pytest.fixture(scope="module")
def raccoon(tmp_path_factory, request):
    """A copy of the annotations beside the photographs: indices are written next to files."""
    source = request.getfixturevalue("real_data") / "raccoon"
    folder = tmp_path_factory.mktemp("raccoon")
    (folder / "images").symlink_to(source / "images")
    for path in [*source.glob("*.json"), *source.glob("*.jsonl")]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from llmdet.datasets.toy.models import tiny_bert

    return tiny_bert(tmp_path_factory.mktemp("bert"))


def run(root, script, *arguments):
    """Start a dist script in this environment; returns what it printed."""
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    # One thread each, as torchrun gives several processes: sums then have the same order.
    variables = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": path, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        ["bash", script, *map(str, arguments)],
        cwd=root,
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def test_two_processes_train_and_measure_what_one_measures(root, raccoon, bert, tmp_path):
    options = ("--cfg-options", f"data_root={raccoon}/", f"lang_model_name={bert}")
    schedule = ("train_cfg.max_iters=8", "train_cfg.val_interval=100")
    log = run(root, "dist_train.sh", CONFIG, 2, "--work-dir", tmp_path, *options, *schedule)
    losses = [float(value) for value in re.findall(r"  loss: ([\d.]+)", log)]
    assert losses
    weights = tmp_path / (tmp_path / "last_checkpoint").read_text()
    measured, predicted = [], []
    for processes in (1, 2):
        work_dir = tmp_path / str(processes)
        out = work_dir / "predictions.jsonl"
        command = ("dist_test.sh", CONFIG, weights, processes, "--work-dir", work_dir)
        run(root, *command, "--out", out, *options)
        (path,) = work_dir.glob("*/*.json")
        values = json.loads(path.read_text())
        measured.append({key: value for key, value in values.items() if "time" not in key})
        predicted.append({image.image_id: image for image in read_predictions(out)[1]})
    assert measured[0] == measured[1]
    # Eight steps promise no average precision above zero: what is predicted must agree as well.
    assert predicted[0].keys() == predicted[1].keys()
    for image_id, alone in predicted[0].items():
        assert len(alone.scores) > 0
        np.testing.assert_array_equal(alone.scores, predicted[1][image_id].scores)
        np.testing.assert_array_equal(alone.boxes, predicted[1][image_id].boxes)
