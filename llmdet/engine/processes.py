"""The end of a program that ran in several processes."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch


def run_in_processes(work: Callable[[], None]) -> None:
    """Call ``work``, which builds and uses a runner, then leave the process group it started.

    What ``work`` made must be gone when it returns: gloo's threads live as long as the model that
    holds the group, and one that lets go of a tensor after Python has ended aborts the process,
    which makes a finished training look like a failed one.
    """
    try:
        work()
        if torch.distributed.is_initialized():
            gc.collect()  # runner and model refer to each other
            # A process that leaves while others still talk to it can bring them down.
            torch.distributed.barrier()
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
