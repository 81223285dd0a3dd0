"""The beginning and the end of a program that runs in several processes."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import DistNetworkError, PrefixStore, TCPStore

from llmdet.errors import ConfigError, TrainingInterrupted


def start_processes(dist_cfg: Mapping[str, Any]) -> None:
    """Start the process group where mmengine or PyTorch would do it wrong.

    mmengine insists on CUDA. After an elastic restart PyTorch finds in torchrun's store the
    addresses of processes that have ended: there each start has a name of its own.
    """
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    restarted = shared and again != "0"
    if torch.distributed.is_initialized() or (torch.cuda.is_available() and not restarted):
        return
    settings: dict[str, Any] = {}
    if dist_cfg.get("timeout") is not None:
        settings["timeout"] = timedelta(seconds=dist_cfg["timeout"])
    if restarted:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        settings["world_size"] = int(os.environ["WORLD_SIZE"])
        settings["rank"] = int(os.environ["RANK"])
        store = TCPStore(*place, settings["world_size"], is_master=False)
        settings["store"] = PrefixStore(f"start_{again}", store)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = dist_cfg.get("backend", "nccl")
    torch.distributed.init_process_group(backend, **settings)


@contextmanager
def told_where_to_meet() -> Iterator[None]:
    """Name the address where processes do not find each other.

    Raises:
        ConfigError: in place of PyTorch's error.
    """
    try:
        yield
    except DistNetworkError as error:
        place = ":".join(os.environ.get(key, "") for key in ("MASTER_ADDR", "MASTER_PORT"))
        raise ConfigError(
            f"the processes cannot meet at {place} ({str(error).splitlines()[0]}); if another "
            "run uses this port, set another MASTER_PORT"
        ) from error


def run_in_processes(work: Callable[[], None]) -> None:
    """Call ``work``, which builds and uses a runner, then leave the process group it started.

    What ``work`` made must be gone when it returns: gloo's threads live as long as the model that
    holds the group, and one that lets go of a tensor after Python has ended aborts the process,
    which makes a finished training look like a failed one.

    Raises:
        TrainingInterrupted: as ``work``; by then what it made is gone.
    """
    stopped = None
    try:
        try:
            work()
        except TrainingInterrupted as error:
            stopped = str(error)  # its traceback holds the runner
        if torch.distributed.is_initialized():
            gc.collect()  # runner and model refer to each other
            # A process that leaves while others still talk to it can bring them down.
            torch.distributed.barrier()
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if stopped is not None:
        raise TrainingInterrupted(stopped)
