"""At its start a run that is spread has the language model's weights in one process alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from llmdet.datasets.toy.models import tiny_qwen
from llmdet.engine import build_runner
from llmdet.models.language.language_model import LanguageModel
from llmdet.models.wrappers import bare
from llmdet.testing.line import line_config
from llmdet.testing.processes import run_processes

LAYERS = 16


class Speaking(BaseModel):
    """A frozen language model with LoRA, and a part that begins at random."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.lmm = LanguageModel(model, dtype="float32", lora={"r": 2, "alpha": 4})
        self.random = torch.nn.Linear(3, 5)

    def forward(self, *points: torch.Tensor, mode: str = "loss") -> dict[str, torch.Tensor]:
        """Nothing here runs it."""
        raise NotImplementedError


def most_memory() -> int:
    """Bytes of this process at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def start(config: Any) -> dict[str, Any]:
    """What a process takes until its model is spread, and the weights of all."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = most_memory()
    config.launcher = "pytorch"
    runner = build_runner(config)
    if runner.strategy is None:
        runner._init_model_weights()
        return {"weights": bare(runner.model).state_dict()}
    runner.build_optim_wrapper(runner.optim_wrapper)
    grown = most_memory() - before
    weights = bare(runner.model).state_dict(keep_vars=True)
    return {"grown": grown, "weights": runner.strategy.gather(weights)}


def test_the_main_process_alone_holds_the_language_model_and_all_begin_as_without_strategy(
    tmp_path,
):
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this machine does not let a process begin to count its peak anew")
    MODELS.register_module(name="Speaking", module=Speaking, force=True)
    sizes = dict(hidden_size=256, intermediate_size=1024, num_hidden_layers=LAYERS)
    qwen = tiny_qwen(tmp_path / "qwen", **sizes)
    settings = dict(model=dict(type="Speaking", model=qwen), default_scope="llmdet")
    whole, _ = run_processes(2, start, line_config(tmp_path / "a", **settings), folder=tmp_path)
    settings["strategy"] = dict(type="FSDP2")
    config = line_config(tmp_path / "b", **settings)
    first, second = run_processes(2, start, config, folder=tmp_path)
    assert first["weights"].keys() == whole["weights"].keys()
    for name, value in whole["weights"].items():
        assert torch.equal(first["weights"][name], value), name
    size = sum(value.nbytes for value in whole["weights"].values())
    # Each has half of the weights in the end.
    assert second["grown"] < first["grown"] - size / 3
