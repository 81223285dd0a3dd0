"""What the benchmark of region language models trains, asks and prints."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llmdet.testing import seeded_jobs
from llmdet.testing.programs import load_program


@pytest.fixture(scope="module")
def benchmark(root):
    return load_program(root / "tools" / "benchmark" / "region_lmm.py")


def row(task, said, answer, split="val_seen", unseen=False):
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": answer}]
    return {"task": task, "said": said, "split": split, "unseen": unseen, "conversations": turns}


def test_shares_keep_unseen_combinations_apart(benchmark):
    found = benchmark.shares(
        [
            row("classify", "star, red", "star, red"),
            row("classify", "ring, red", "star, red", "val_unseen", unseen=True),
            row("choose", "star, red", "star, red", "val_unseen"),
            row("exist", "yes", "yes"),
            row("exist", "yes", "no"),
            row("exist", "no", "yes", "val_unseen", unseen=True),
            row("relate", "above", "above", "val_unseen"),
        ]
    )
    assert found["classify seen"] == 1
    assert found["classify unseen"] == 0
    assert found["choose seen"] == 1
    assert found["exist"] == 0.5  # of the split whose questions have as many of both answers
    assert found["yes-ratio"] == 1
    assert found["relate"] == 1
    assert found["choose unseen"] != found["choose unseen"]  # nothing was asked


@pytest.fixture(scope="module")
def finished(benchmark, tmp_path_factory):
    """A step of every kind of training."""
    bench = benchmark.Bench(tmp_path_factory.mktemp("bench") / "short", benchmark.SHORT)
    bench.make_data()
    for name in ("eye with language", "object query", "eye captions alone", "captions, deconv"):
        bench.run(name, 0)
    return bench


def test_a_given_eye_is_taken_for_every_seed(benchmark, finished, tmp_path):
    given = replace(finished, eye=tmp_path / "eye.pth")
    config = given.region_config(benchmark.VARIANTS["object query"], 7)
    assert config.model.towers.eye.weights == str(tmp_path / "eye.pth")
    assert given.place("object query", 7) != finished.place("object query", 7)
    own = finished.region_config(benchmark.VARIANTS["with language, memory"], 0)
    assert own.model.towers.eye.weights.endswith("eye_with_language_seed0/run/iter_1.pth")
    assert own.model.towers.eye.queries is False
    assert own.model.slots.region.encoder.type == "MaskPool"


def test_every_kind_of_training_leaves_what_it_came_to(benchmark, finished):
    assert finished.result("eye with language", 0).keys() == {"seconds"}
    for name in ("object query", "captions, deconv"):
        assert finished.result(name, 0).keys() == set(benchmark.COLUMNS)
        assert finished.result(name, 0)["exist"] == 0  # after two steps nothing is said rightly


def test_finished_trainings_are_reported_and_not_repeated(benchmark, finished, capsys, monkeypatch):
    monkeypatch.setattr(
        seeded_jobs.subprocess, "run", lambda *_, **__: pytest.fail("trained again")
    )
    place = finished.place("object query", 1)
    place.mkdir()
    values = dict.fromkeys(benchmark.COLUMNS, 0.5) | {"seconds": 100}
    (place / "result.json").write_text(json.dumps(values))
    (finished.place("object query", 0) / "result.json").write_text(
        json.dumps(dict.fromkeys(benchmark.COLUMNS, 1.0) | {"seconds": 102})
    )
    for seed in (0, 1):
        eye = finished.place("eye with language", seed)
        eye.mkdir(exist_ok=True)
        (eye / "result.json").write_text("{}")
    options = ["--work-dir", str(finished.folder.parent), "--short", "--seeds", "0", "1"]
    assert benchmark.main([*options, "--tables", "main"]) == 0
    tables = capsys.readouterr().out
    assert "| main | classify seen | classify unseen |" in tables
    assert "| 75.0 ± 35.4 |" in tables
    assert tables.strip().endswith("| 101 ± 1 |")


def test_a_training_that_fails_names_its_log(benchmark, tmp_path):
    bench = benchmark.Bench(tmp_path / "short", benchmark.SHORT)
    with pytest.raises(SystemExit, match=r"'no such row' with seed 0 failed; see .*log\.txt"):
        bench.run_all(["no such row"], [0], 1)
