"""What the benchmark of retrieval trains, asks and prints."""

from __future__ import annotations

import json

import pytest
import torch

from llmdet.models.vision.views import Frame, View
from llmdet.registry import MODELS
from llmdet.testing import seeded_jobs
from llmdet.testing.programs import load_program
from llmdet.testing.toy_eye import _part


@pytest.fixture(scope="module")
def benchmark(root):
    return load_program(root / "tools" / "benchmark" / "retrieval.py")


BOX, OTHER = [0.0, 0, 10, 10], [20.0, 0, 30, 10]


def row(task, meant, found, unseen=False):
    return {"task": task, "unseen": unseen, "meant": meant, "found": found}


def test_values_keep_tasks_apart(benchmark):
    values = benchmark.scores(
        [
            row("detect", [BOX], [BOX, OTHER]),
            row("detect", [BOX, OTHER], [OTHER]),
            row("detect", [BOX], [], unseen=True),
            row("several", [BOX], [BOX]),
            row("relate", [BOX], [BOX, OTHER]),
            row("absent", [], []),
            row("absent", [], [BOX]),
            row("refuse", [], []),
        ]
    )
    assert values.keys() == set(benchmark.COLUMNS)
    assert (values["detect P"], values["detect R"]) == (75, 75)
    assert (values["unseen P"], values["several R"]) == (0, 100)
    assert values["relate DF1"] == pytest.approx(100 * 2 / 3 / 2)  # F1, halved for a box too many
    assert (values["absent rejected"], values["empty relation rejected"]) == (50, 100)
    assert values["falsely rejected"] == 20


@pytest.fixture(scope="module")
def finished(benchmark, tmp_path_factory):
    """A step of every training."""
    bench = benchmark.Bench(tmp_path_factory.mktemp("bench") / "short", benchmark.SHORT)
    bench.make_data()
    for name in benchmark.JOBS:
        bench.run(name, 0)
    return bench


def test_every_job_leaves_what_it_came_to(benchmark, finished):
    results = finished.results(0)
    assert set(benchmark.ROWS) <= set(results)
    assert results["recall of good"].keys() == {"AR@10", "AR@100"}
    for title in benchmark.ROWS:
        assert results[title].keys() == set(benchmark.COLUMNS)


def test_the_eye_looks_at_each_image_once(finished, monkeypatch):
    config = finished.retrieval_config("with rejection", 0)
    eye = MODELS.build(config.model.towers.eye).eval()
    frame = Frame(
        torch.ones(2, 2), torch.zeros(2, 2), ((64, 48), (64, 64)), ((64, 48),) * 2, (64, 64)
    )
    pixels = torch.randn(2, 3, 64, 64)
    pixels[0, :, :, 48:] = 0
    view = View(pixels, frame)
    with torch.no_grad():
        first, expected = eye(view), eye.tower(view)
        torch.testing.assert_close(first.queries, expected.queries)
        monkeypatch.setattr(eye.tower, "forward", lambda _: pytest.fail("looked again"))
        again = eye(View(pixels.flip(0)[:1], _part(view, [1]).frame))
    assert torch.equal(again.query_boxes, first.query_boxes[1:])
    assert torch.equal(again.query_scores, first.query_scores[1:])


def test_proposals_are_those_of_every_image_that_is_learned_or_asked_about(finished):
    kept = json.loads((finished.place("proposals", 0) / "good.json").read_text())
    assert {split: len(boxes) for split, boxes in kept.items()} == {
        "train": 8,
        "val_seen": 2,
        "val_unseen": 2,
    }
    rows = (finished.place("with rejection", 0) / "rows.jsonl").read_text().splitlines()
    first = json.loads(rows[0])
    assert first["proposals"] == kept["train"][first["filename"]]
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
    assert "| percent | detect P | detect R |" in printed
    assert "| trained without rejection |" in printed


def test_a_given_eye_is_taken_for_every_seed(benchmark, tmp_path):
    own = benchmark.Bench(tmp_path, benchmark.SHORT)
    given = benchmark.Bench(tmp_path, benchmark.SHORT, tmp_path / "eye.pth")
    assert given.eye_weights(3) == tmp_path / "eye.pth"
    assert given.place("proposals", 0) != own.place("proposals", 0)


def test_means_and_deviations_are_over_seeds(benchmark):
    def results(value):
        rows = {title: dict.fromkeys(benchmark.COLUMNS, value) for title in benchmark.ROWS}
        recall = {"AR@10": value, "AR@100": value}
        spent = {"with rejection, training": 100.0}
        return rows | {"recall of good": recall, "recall of worse": recall} | spent

    lines = benchmark.tables([results(90.0), results(92.0)])
    assert lines[3].startswith("| proposals | 91.0 ± 1.4 |")
    assert lines[-1].endswith("100.0 ± 0.0")
