"""Runs that diverge."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.registry import MODELS

from llmdet.engine import build_runner, latest_checkpoint, read_training_state
from llmdet.errors import ConfigError, DivergenceError
from llmdet.testing.line import Regression, line_config


class Diverging(Regression):
    """Has a loss, or a weight, that is no finite number from its fourth step on."""

    def __init__(self, value: float, what: str = "loss") -> None:
        super().__init__()
        self.value, self.what, self.steps = value, what, 0

    def forward(self, *points, mode="loss"):
        self.steps += 1
        losses = super().forward(*points)
        if self.steps >= 4 and self.what == "loss":
            losses["loss_other"] = losses["loss"] * self.value
        if self.steps >= 4 and self.what == "weight":
            with torch.no_grad():
                self.linear.bias.fill_(self.value)
            losses["loss"] = losses["loss"].detach() + self.linear.weight.sum() * 0
        return losses


@pytest.fixture(autouse=True)
def registered():
    MODELS.register_module(name="Diverging", module=Diverging, force=True)


def config(folder, interval=50, **changes):
    made = line_config(folder, max_iters=8, default_scope="llmdet", **changes)
    made.default_hooks = dict(
        checkpoint=dict(type="CheckpointHook", interval=2, by_epoch=False, max_keep_ckpts=1),
        finite_losses=dict(type="FiniteLossHook", interval=interval),
    )
    return made


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_before_a_checkpoint_is_overwritten(tmp_path, value):
    runner = build_runner(config(tmp_path, model=dict(type="Diverging", value=value)))
    with pytest.raises(DivergenceError, match=f"iteration 4: .*loss_other is {value}"):
        runner.train()
    newest = latest_checkpoint(tmp_path)
    assert newest == tmp_path / "iter_2.pth"
    assert all(v.isfinite().all() for v in read_training_state(newest)["state_dict"].values())


def test_weights_that_are_no_numbers_are_not_written(tmp_path):
    model = dict(type="Diverging", value=float("nan"), what="weight")
    with pytest.raises(DivergenceError, match=r"iteration 4: the weight 'linear\.bias'"):
        build_runner(config(tmp_path, model=model)).train()
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_2.pth"


def test_the_host_looks_at_losses_only_at_the_interval(tmp_path, monkeypatch):
    looks = []
    look = torch.isfinite
    monkeypatch.setattr(torch, "isfinite", lambda values: looks.append(len(values)) or look(values))
    settings = config(tmp_path, interval=3)
    settings.default_hooks.checkpoint.interval = 100
    settings.default_hooks.checkpoint.save_last = False
    build_runner(settings).train()
    assert looks == [3 * 1, 3 * 1, 2 * 1]  # of eight steps of one loss


class Stumbling(Regression):
    """Has an infinite loss in its fourth step alone."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, *points, mode="loss"):
        self.steps += 1
        losses = super().forward(*points)
        return {"loss": losses["loss"] / (0.0 if self.steps == 4 else 1.0)}


def test_a_run_that_may_skip_leaves_the_update_out_and_goes_on(tmp_path, caplog):
    MODELS.register_module(name="Stumbling", module=Stumbling, force=True)
    settings = config(tmp_path, model=dict(type="Stumbling"))
    settings.default_hooks.finite_losses.action = "skip"
    runner = build_runner(settings)
    logging.getLogger("llmdet").addHandler(caplog.handler)
    runner.train()
    assert runner.iter == 8
    assert all(p.isfinite().all() for p in runner.model.parameters())
    steps = {int(entry["step"]) for entry in runner.optim_wrapper.state_dict()["state"].values()}
    assert steps == {7}
    (line,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert "iteration 4: loss is inf" in line
    assert (tmp_path / "diverged" / "iter_4_rank_0.pth").is_file()


def test_a_run_that_only_skips_ends(tmp_path):
    settings = config(tmp_path, model=dict(type="Diverging", value=float("nan")))
    settings.default_hooks.finite_losses.update(action="skip", most_skipped=3)
    with pytest.raises(DivergenceError, match="iteration 6: "):
        build_runner(settings).train()


def test_an_unknown_action_is_refused(tmp_path):
    settings = config(tmp_path)
    settings.default_hooks.finite_losses.action = "ignore"
    with pytest.raises(ConfigError, match="choose 'stop' or 'skip'"):
        build_runner(settings)
