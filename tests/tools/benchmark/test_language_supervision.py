"""The comparison of training with and without language supervision."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llmdet.datasets.toy.judge import Tally
from llmdet.datasets.toy.vocabulary import HELD_OUT, Kind
from llmdet.testing.programs import load_program


@pytest.fixture
def benchmark(root):
    return load_program(root / "tools" / "benchmark" / "language_supervision.py")


def finished_run(folder, loss):
    """What a training and its measurement leave in a work dir."""
    (folder / "20260101" / "vis_data").mkdir(parents=True)
    rows = [
        {"step": step, "loss": 9.0, "loss_cls": loss / step, "loss_bbox": 0.5, "loss_iou": 0.5}
        for step in (10, 20)
    ]
    scalars = [*map(json.dumps, rows), json.dumps({"step": 20, "coco/AP": 0.1})]
    (folder / "20260101" / "vis_data" / "scalars.json").write_text("\n".join(scalars))
    (folder / "last_checkpoint").write_text(str(folder / "iter_20.pth"))
    coco = {"AP50": 0.9, "AP": 0.6, "novel_ap50": 0.8, "novel_ap": loss / 100}
    for split in ("val_seen", "val_unseen"):
        (folder / f"{split}_coco.json").write_text(json.dumps({"values": coco}))
        fixed = {"values": {"APr": 0.5}}
        (folder / f"{split}_lvis-fixed-ap.json").write_text(json.dumps(fixed))
    said = {"seen in training: recall": 0.25, "with unseen combinations: recall": float("nan")}
    (folder / "said_100.json").write_text(json.dumps(said))


def test_finished_runs_are_reported_and_not_repeated(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "run", lambda *_: pytest.fail("something was run again"))
    chance = {"seen in training: recall": 0.0625, "with unseen combinations: recall": 0.0}
    monkeypatch.setattr(benchmark, "unrelated_descriptions", lambda _: chance)
    for name in ("llmdet", "detector"):
        for seed, loss in ((0, 10.0), (1, 30.0)):
            finished_run(tmp_path / f"{name}_seed{seed}", loss)
    benchmark.main(["--work-dir", str(tmp_path), "--seeds", "0", "1"])
    tables = capsys.readouterr().out
    assert "| with language | 90.0 ± 0.0 | 60.0 ± 0.0 | 80.0 ± 0.0 | 20.0 ± 14.1 |" in tables
    assert "| seen in training | 25.0 ± 0.0 |" in tables
    assert "| seen in training, by chance | 6.2 |" in tables
    assert "| with unseen combinations |  |" in tables
    assert "| detector alone | 3.00 ± 1.41 | 2.00 ± 0.71 |" in tables
    assert (tmp_path / "losses.svg").read_text().startswith("<?xml")


def test_shares_are_of_seen_and_unseen_combinations_apart(benchmark):
    seen, unseen = Kind("red", "circle"), HELD_OUT[0]
    judged = [
        (
            Tally(objects=2, named=2, found=1, placed=1),
            [seen, unseen],
            [(True, True), (True, False)],
        ),
        (Tally(objects=2, named=0), [seen], [(False, True)]),
    ]
    shares = benchmark.shares_of("title", judged)
    assert shares["title: recall"] == 0.25
    assert shares["title: seen both"] == 0.5
    assert (shares["title: unseen colour"], shares["title: unseen both"]) == (1, 0)
    nothing = benchmark.shares_of("title", judged[1:])
    assert np.isnan(nothing["title: unseen both"])
    assert np.isnan(benchmark.shares_of("title", [])["title: recall"])


def test_the_detector_alone_can_be_left_out(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "run", lambda *_: pytest.fail("something was trained"))
    monkeypatch.setattr(benchmark, "unrelated_descriptions", lambda _: {})
    finished_run(tmp_path / "llmdet_seed0", 10.0)
    benchmark.main(["--work-dir", str(tmp_path), "--seeds", "0", "--language-only"])
    tables = capsys.readouterr().out
    assert "| with language | 90.0 |" in tables
    assert "detector alone" not in tables


def test_a_failed_command_names_its_log(benchmark, tmp_path):
    with pytest.raises(SystemExit, match=r"'false' failed; see .*run\.log"):
        benchmark.run(["false"], tmp_path / "run.log")
