"""What the benchmark of retrieval trains, asks and prints."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config

from llmdet.datasets.candidates import overlapping
from llmdet.errors import ConfigError
from llmdet.testing import seeded_jobs
from llmdet.testing.programs import load_program
from llmdet.testing.toy_trainings import trained_weights


@pytest.fixture(scope="module")
def benchmark(root):
    return load_program(root / "tools" / "benchmark" / "retrieval.py")


@pytest.fixture(scope="module")
def finished(benchmark, tmp_path_factory):
    """A step of every training."""
    bench = benchmark.Bench(tmp_path_factory.mktemp("bench") / "short", benchmark.SHORT)
    bench.make_data()
    for name in (*benchmark.SHARED, *benchmark.JOBS):
        bench.run(name, 0)
    return bench


def test_every_job_leaves_what_it_came_to(benchmark, finished):
    results = finished.results(0)
    assert set(benchmark.ROWS) <= set(results)
    assert results["recall of good"].keys() == {"AR@10", "AR@100", "R@10", "R@100"}
    for title in benchmark.ROWS:
        assert results[title].keys() == {*benchmark.FOUND, *benchmark.REJECTED}


def test_what_the_eye_sees_is_kept_of_every_training_image(finished):
    kept = torch.load(finished.place("look", 0) / "kept.pt", weights_only=False)
    assert list(kept) == finished.files()["train"]
    assert {seen.queries.shape[0] for seen in kept.values()} == {1}


def test_proposals_are_those_of_every_image_that_is_learned_or_asked_about(finished):
    kept = json.loads((finished.place("proposals", 0) / "good.json").read_text())
    assert {split: len(boxes) for split, boxes in kept.items()} == {
        "train": 8,
        "val_seen": 2,
        "val_unseen": 2,
    }
    worse = json.loads((finished.place("proposals", 0) / "worse.json").read_text())
    assert set(worse) == {"val_seen", "val_unseen"}  # asked about alone
    rows = (finished.place("with rejection", 0) / "rows.jsonl").read_text().splitlines()
    first = json.loads(rows[0])
    shown = np.array([region["bbox"] for region in first["regions"]])
    offered = np.array(kept["train"][first["filename"]])[:, :4]
    assert overlapping(offered, shown, 0.5).all()
    others = (finished.place("without rejection", 0) / "rows.jsonl").read_text()
    assert "There is no such thing" in "".join(rows)
    assert "There is no such thing" not in others


def test_finished_jobs_are_reported_and_not_repeated(benchmark, finished, capsys, monkeypatch):
    monkeypatch.setattr(
        seeded_jobs.subprocess, "run", lambda *_, **__: pytest.fail("trained again")
    )
    options = ["--work-dir", str(finished.folder.parent), "--short", "--seeds", "0"]
    assert benchmark.main(options) == 0
    printed = capsys.readouterr().out
    assert "| found, percent | detect P | detect R |" in printed
    assert "| rejected, percent | absent kinds | empty sides |" in printed
    assert "| trained without rejection |" in printed


@pytest.mark.parametrize("given", [True, False])
def test_the_eye_and_what_it_sees_serve_all_seeds(benchmark, tmp_path, monkeypatch, given):
    done = []
    monkeypatch.setattr(benchmark.Bench, "make_data", lambda _: None)
    monkeypatch.setattr(benchmark.Bench, "run_apart", lambda _, *job: done.append(job))
    monkeypatch.setattr(benchmark, "tables", lambda _: [])
    monkeypatch.setattr(benchmark.Bench, "results", lambda *_: {})
    (tmp_path / "eye.pth").touch()
    eye = ["--eye", str(tmp_path / "eye.pth")] if given else []
    options = ["--work-dir", str(tmp_path), "--short", "--seeds", "3", "4", "--processes", "1"]
    benchmark.main([*options, *eye])
    shared = ["look"] if given else ["eye", "look"]
    assert done[: len(shared)] == [(name, 0) for name in shared]
    assert done[len(shared) :] == [(name, seed) for name in benchmark.JOBS for seed in (3, 4)]


def test_what_was_learned_small_is_where_enlarged_images_begin(finished):
    folder = finished.place("proposals", 0)
    settings = Config.fromfile(next((folder / "good" / "run").glob("*.py")))
    assert settings.load_from == str(trained_weights(folder / "worse"))


def test_a_folder_keeps_to_one_eye(benchmark, tmp_path):
    eye = tmp_path / "eye.pth"
    given = benchmark.Bench(tmp_path / "work", benchmark.SHORT, eye)
    with pytest.raises(ConfigError, match=r"--eye: there is no file .*eye\.pth"):
        given.keep_to_one_eye()
    eye.write_bytes(b"one")
    given.keep_to_one_eye()
    given.keep_to_one_eye()
    with pytest.raises(ConfigError, match="than one of its own: name another --work-dir"):
        benchmark.Bench(tmp_path / "work", benchmark.SHORT).keep_to_one_eye()
    eye.write_bytes(b"another that was trained since")
    with pytest.raises(ConfigError, match=r"another eye than .*eye\.pth"):
        given.keep_to_one_eye()


def test_a_set_that_was_not_finished_is_made_anew(benchmark, tmp_path):
    bench = benchmark.Bench(tmp_path, benchmark.SHORT)
    for name in ("new_shapes", "toy_outlines"):
        (tmp_path / name / "images.tmp").mkdir(parents=True)
    bench.make_data()
    bench.make_data()
    assert len(list((tmp_path / "toy_outlines" / "images").iterdir())) == benchmark.SHORT.outlines
    assert (tmp_path / "new_shapes" / "instances_val.json").is_file()
    assert not list(tmp_path.glob("*/images.tmp"))


def test_means_and_deviations_are_over_seeds(benchmark):
    def results(value):
        rows = {
            title: dict.fromkeys((*benchmark.FOUND, *benchmark.REJECTED), value)
            for title in benchmark.ROWS
        }
        recall = dict.fromkeys(("AR@10", "AR@100", "R@10", "R@100"), value)
        spent = {"with rejection, training": 100.0}
        return rows | {"recall of good": recall, "recall of worse": recall} | spent

    lines = benchmark.tables([results(90.0), results(92.0)])
    assert lines[3].startswith("| proposals | 91.0 ± 1.4 |")
    assert lines[-1].endswith("100.0 ± 0.0")
