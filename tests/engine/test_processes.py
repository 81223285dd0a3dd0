"""How programs of several processes end."""

import gc
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from llmdet.engine import run_in_processes


def gloo_threads() -> int:
    names = Path("/proc/self/task").glob("*/comm")
    return sum(name.read_text().startswith("pt_gloo") for name in names)


class Trainer:
    """A model and what refers to it in a circle, as a runner and its hooks do."""

    def __init__(self, store: Path) -> None:
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
        self.owner = self
        self.model = DistributedDataParallel(nn.Linear(2, 2))

    def step(self) -> None:
        self.model(torch.ones(1, 2)).sum().backward()
        assert gloo_threads()


def test_no_thread_of_gloo_outlives_the_work(tmp_path):
    def work() -> None:
        Trainer(tmp_path / "store").step()

    run_in_processes(work)
    assert not distributed.is_initialized()
    assert not gloo_threads()


def test_a_failure_leaves_the_group_too(tmp_path):
    def work() -> None:
        Trainer(tmp_path / "store").step()
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        run_in_processes(work)
    assert not distributed.is_initialized()
    gc.collect()
    assert not gloo_threads()


def test_work_without_a_group_is_only_called():
    calls = []
    run_in_processes(lambda: calls.append(1))
    assert calls == [1]
