"""What the benchmark of answers with masks trains, asks and prints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config

from llmdet.registry import MODELS
from llmdet.testing import seeded_jobs
from llmdet.testing.mask_answers import GIVEN_AS, match_masks, shares
from llmdet.testing.programs import load_program


@pytest.fixture(scope="module")
def benchmark(root):
    return load_program(root / "tools" / "benchmark" / "masks.py")


@pytest.fixture(scope="module")
def finished(benchmark, root, tmp_path_factory):
    """A step of every kind of training, with an eye of random weights."""
    folder = tmp_path_factory.mktemp("bench")
    bench = benchmark.Bench(folder / "short", benchmark.SHORT, folder / "eye.pth")
    bench.make_data()
    eye = Config.fromfile(root / "configs" / "quickstart" / "region_lmm.py").model.towers.eye
    eye.weights, eye.detector.language_model.name = None, str(bench.toy / "bert")
    torch.save({"state_dict": MODELS.build(eye).detector.state_dict()}, folder / "eye.pth")
    for name in ("look", "sam", "reading", "words", "heads"):
        bench.run(name, 0)
    return bench


def test_every_kind_of_training_leaves_what_it_came_to(benchmark, finished):
    assert finished.result("sam", 0).keys() == {"seconds"}
    result = finished.result("heads", 0)
    assert set(benchmark.MASK_COLUMNS) < set(result)
    assert all(0 <= value <= 1 for key, value in result.items() if key != "seconds")
    place = finished.place("heads", 0)
    asked = list(map(json.loads, (place / "answers.jsonl").read_text().splitlines()))
    assert {each["given"] for each in asked} == set(GIVEN_AS)
    listed = [each for each in asked if each["given"] == "as mask"]
    assert {each["task"] for each in listed} == {"index", "name", "find", "relate"}
    assert (place / "weights.pth").is_file()


def test_lists_are_read_before_words_and_change_the_language_model_alone(finished):
    torch.manual_seed(0)
    begin = MODELS.build(finished.config(0).model).state_dict()
    read = torch.load(finished.place("reading", 0) / "weights.pth")["state_dict"]
    changed = {name for name, value in read.items() if not value.equal(begin[name])}
    assert changed
    assert all(name.startswith("lmm.") for name in changed)


def test_finished_trainings_are_reported_and_not_repeated(benchmark, finished, capsys, monkeypatch):
    monkeypatch.setattr(
        seeded_jobs.subprocess, "run", lambda *_, **__: pytest.fail("trained again")
    )
    values = dict.fromkeys(finished.result("heads", 0), 0.5) | {"seconds": 100}
    for name in ("heads", "refer", "sam", "reading", "words"):
        for seed in (0, 1):
            place = finished.place(name, seed)
            place.mkdir(exist_ok=True)
            (place / "result.json").write_text(json.dumps(values))
    options = ["--work-dir", str(finished.folder.parent), "--short", "--seeds", "0", "1"]
    options += ["--models", "refer", "heads", "--eye", str(finished.eye)]
    assert benchmark.main(options) == 0
    tables = capsys.readouterr().out
    assert "| refer | 50.0 ± 0.0 | 50.0 ± 0.0 |  |  |  |  | 100 ± 0 |" in tables
    assert "| as mask, unseen | 50.0 ± 0.0 |" in tables


def test_without_an_eye_the_one_that_was_trained_is_taken(benchmark, tmp_path):
    bench = benchmark.Bench(tmp_path, benchmark.SHORT)
    (tmp_path / "eye" / "run").mkdir(parents=True)
    (tmp_path / "eye" / "run" / "last_checkpoint").write_text("iter_1.pth")
    config = bench.config(3)
    assert config.model.towers.eye.weights == str(tmp_path / "eye" / "run" / "iter_1.pth")
    assert config.model.towers.sam.model == str(tmp_path / "sam_seed3")
    assert config.model.output.outputs[1].decoder.model == str(tmp_path / "sam_seed3")
    assert config.model.lmm.model == str(tmp_path / "toy" / "mask_language_model")


def asked(task, split="val_seen", unseen=False, **right):
    return {"task": task, "split": split, "unseen": unseen, "given": "as given", **right}


def test_pixels_are_summed_and_captions_counted_by_object():
    found = shares(
        [
            asked("refer", inside=10, union=10),
            asked("refer", inside=0, union=30),
            asked("refer", "val_unseen", unseen=True, inside=3, union=4),
            asked("index", inside=1, union=2, mask=True),
            asked("caption", ious=[0.9, 0.4], named=1, wanted=4, found=2),
            asked("caption", ious=[], named=0, wanted=1, found=0),
            asked("caption", "val_unseen", ious=[0.1], named=0, wanted=5, found=1),
            asked("relate", index=True, mask=False, text=True),
        ]
    )
    assert found["refer seen"] == 0.25
    assert found["refer unseen"] == 0.75
    assert found["recall"] == found["recall with phrase"] == 0.2
    assert found["mIoU"] == pytest.approx(0.325)
    assert found["index"] == 0.5
    assert found["left, right, above, below as given, seen"] == 0


def test_the_best_pairs_of_masks_come_first_and_each_mask_counts_once():
    def square(start, end):
        mask = np.zeros((10, 10), bool)
        mask[:, start:end] = True
        return mask

    found = match_masks(
        [square(0, 3), square(0, 5), square(9, 10)],
        ["ring", "star", "star"],
        [square(0, 5), square(0, 4)],
        ["star", "star"],
    )
    assert found["ious"] == [1.0, 0.75]
    assert found["named"] == 1  # the other is called a ring
    assert (found["wanted"], found["found"]) == (2, 3)
