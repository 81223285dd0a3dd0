"""The end of a program that ran in several processes."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from llmdet.errors import TrainingInterrupted


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
