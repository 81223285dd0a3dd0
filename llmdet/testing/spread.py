"""Trainings of models that are spread over processes, and what they end with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from llmdet.engine import build_runner
from llmdet.models.wrappers import bare
from llmdet.testing.line import line_config


def import_deepspeed() -> None:
    """Import what forked processes need of DeepSpeed; a test is skipped where it is missing."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    for part in ("engine", "zero.stage3", "zero.stage_1_and_2", "zero.muon.muon_optimizer"):
        reason = "the extra deepspeed is not installed"
        pytest.importorskip(f"deepspeed.runtime.{part}", reason=reason)


def layers_config(work_dir: Path, **changes: Any) -> Config:
    """A training of four steps of which a part is frozen and gradients are clipped."""
    settings = {"model": dict(type="Layers"), "default_scope": "llmdet", **changes}
    config = line_config(work_dir, **settings)
    config.optim_wrapper.clip_grad = dict(max_norm=0.5)
    return config


def train(config: Config) -> dict[str, Any]:
    """Train as one of the processes: what was logged, and the state at the end."""
    config.launcher = "pytorch" if torch.distributed.is_initialized() else "none"
    runner = build_runner(config)
    runner.train()
    return outcome(runner)


def resume(config: Config) -> dict[str, Any]:
    """Resume as one of the processes, without a further step."""
    return train(config)


def outcome(runner: Any) -> dict[str, Any]:
    """Losses and norms of all steps, how many numbers this process keeps, and the whole state."""
    hub = runner.message_hub
    model = bare(runner.model)
    weights = model.state_dict(keep_vars=True)
    state = {"weights": weights, "optimizer": runner.optim_wrapper.state_dict()}
    own = [getattr(p, "to_local", lambda p=p: p)() for p in model.parameters()]
    return {
        "loss": hub.get_scalar("train/loss").data[0].tolist(),
        "norm": hub.get_scalar("train/grad_norm").data[0].tolist(),
        "iter": runner.iter,
        "numbers": sum(part.numel() for part in own),
        "state": runner.strategy.gather(state) if runner.strategy else _detached(state),
    }


def assert_equal_states(found: dict[str, Any], expected: dict[str, Any], **tolerance: Any) -> None:
    """Compare weights and states of optimizers."""
    torch.testing.assert_close(found["weights"], expected["weights"], **tolerance)
    torch.testing.assert_close(
        found["optimizer"]["state"], expected["optimizer"]["state"], **tolerance
    )


def _detached(state: dict[str, Any]) -> dict[str, Any]:
    weights = {name: value.detach() for name, value in state["weights"].items()}
    return {**state, "weights": weights}
