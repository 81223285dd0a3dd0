"""Workers of data loaders and the process they belong to."""

import ctypes
import signal
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from llmdet.engine import Runner
from llmdet.engine.workers import tie_workers

#: Of prctl: which signal a process gets when its parent has ended.
GET_PDEATHSIG = 2


class DeathSignals(Dataset):
    """What the process that reads it would die of."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        number = ctypes.c_int()
        ctypes.CDLL(None).prctl(GET_PDEATHSIG, ctypes.byref(number))
        return number.value


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's prctl is Linux's")
def test_a_worker_is_killed_with_the_process_that_started_it():
    settings = dict(dataset=DeathSignals(), batch_size=1, num_workers=1)
    sampler = dict(type="DefaultSampler", shuffle=False)
    loader = Runner.build_dataloader(dict(**settings, sampler=sampler), seed=7)
    assert list(loader) == [[signal.SIGKILL]] * 2


def test_what_a_config_does_at_the_start_of_a_worker_is_done_still():
    def start(worker: int) -> None:
        torch.manual_seed(1000 + worker)

    loader = DataLoader(Seeds(), num_workers=2, worker_init_fn=start)
    tie_workers(loader)
    assert [int(value) for value in loader] == [1000, 1001]


class Seeds(Dataset):
    """What the process that reads it was seeded with."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return torch.initial_seed()
