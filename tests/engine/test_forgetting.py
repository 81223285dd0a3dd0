"""What a run measures before its first step and after its last one."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, MODELS

from llmdet.engine import ForgettingHook, build_runner
from llmdet.engine.forgetting import Measured, comparison
from llmdet.errors import ConfigError
from llmdet.testing.line import Regression, line_config


@MODELS.register_module()
class PredictedLine(Regression):
    """Says the errors that it makes at the points of a batch."""

    def forward(self, *points: torch.Tensor, mode: str = "loss"):
        if mode == "loss":
            return super().forward(*points)
        x, y = torch.stack(points).split(1, dim=1)
        return [{"error": abs(error)} for error in (self.linear(x) - y).flatten().tolist()]


@METRICS.register_module()
class MeanError(BaseMetric):
    """``scale`` times the mean error."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def process(self, data_batch, data_samples):
        self.results += [sample["error"] for sample in data_samples]

    def compute_metrics(self, results):
        return {"error": self.scale * sum(results) / len(results), "images": len(results)}


LOADER = {
    "dataset": {"type": "Line"},
    "batch_size": 3,
    "num_workers": 0,
    "sampler": {"type": "DefaultSampler", "shuffle": False},
}


def config(work_dir, **changes):
    settings = {
        "model": {"type": "PredictedLine"},
        "val_dataloader": LOADER,
        "val_evaluator": {"type": "MeanError", "scale": 1.0},
        "val_cfg": {},
        "zero_shot_dataloader": LOADER,
        "zero_shot_evaluator": {"type": "MeanError", "scale": 10.0},
        "custom_hooks": [{"type": ForgettingHook}],
    }
    return line_config(work_dir, **(settings | changes))


def mean_error(model):
    x = torch.arange(8)[:, None] / 8
    return (model.linear(x) - (2 * x + 1)).abs().mean().item()


def test_both_sets_are_measured_before_and_after(tmp_path, caplog):
    runner = build_runner(config(tmp_path / "run"))
    logging.getLogger("llmdet").propagate = True
    start = mean_error(runner.model)
    with caplog.at_level(logging.INFO):
        runner.train()
    end = mean_error(runner.model)
    assert end < start
    report = json.loads((tmp_path / "run" / "before_after.json").read_text())
    assert report["iterations"] == 4
    for when, error in (("before", start), ("after", end)):
        assert report[when]["target"] == pytest.approx({"error": error, "images": 8}, rel=1e-5)
        assert report[when]["zero_shot"]["error"] == pytest.approx(10 * error, rel=1e-5)
    assert f"{end:>10.4f}{10 * end:>12.4f}" in caplog.text
    assert f"{end - start:>+10.4f}{10 * (end - start):>+12.4f}" in caplog.text


def test_measuring_changes_nothing_in_the_training(tmp_path):
    states = []
    for name, hooks in (("with", config(tmp_path / "x").custom_hooks), ("without", [])):
        runner = build_runner(config(tmp_path / name, custom_hooks=hooks))
        runner.train()
        states.append(runner.model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_resumed_run_knows_what_it_started_from(tmp_path):
    build_runner(config(tmp_path / "run", max_iters=2)).train()
    first = json.loads((tmp_path / "run" / "before_after.json").read_text())
    again = config(tmp_path / "run", resume=True)
    again.experiment_name = f"again_{tmp_path.name}"
    build_runner(again).train()
    second = json.loads((tmp_path / "run" / "before_after.json").read_text())
    assert second["before"] == first["before"]
    assert second["iterations"] == 4
    assert second["after"] != first["after"]


def test_a_config_without_the_other_set_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no zero_shot_dataloader"):
        build_runner(config(tmp_path / "run", zero_shot_dataloader=None)).train()


def test_a_table_of_states_ends_with_their_change():
    rows = {
        name: Measured({"AP": target}, {"mAP": other})
        for name, target, other in (("alpha 0", 0.1, 0.5), ("alpha 1", 0.7, 0.25))
    }
    lines = [line.split() for line in comparison(rows).splitlines()]
    assert lines[2:] == [
        ["alpha", "0", "0.1000", "0.5000"],
        ["alpha", "1", "0.7000", "0.2500"],
        ["change", "+0.6000", "-0.2500"],
    ]
    assert "change" not in comparison({"only": rows["alpha 0"]})
