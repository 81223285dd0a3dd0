"""Workers of data loaders."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from torch.utils.data import DataLoader

from llmdet.utils.launchers import end_with_parent


def tie_workers(loader: DataLoader) -> None:
    """Let the workers of a data loader end with this process.

    One that waits to hand a batch over, in a pipe that its fellows hold open, does not notice that
    the process was killed.
    """
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn, os.getpid())


def _start_worker(inner: Callable[[int], None] | None, parent: int, worker: int) -> None:
    end_with_parent(parent)
    if inner is not None:
        inner(worker)
