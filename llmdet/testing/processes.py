"""Several processes of one function, as torchrun would start them, forked from this one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def run_processes(count: int, function: Callable[..., Any], *arguments: Any, folder: Path) -> list:
    """Call ``function(*arguments)`` in ``count`` processes that talk over gloo.

    They are forked, so that nothing is imported anew.

    Args:
        count: of processes.
        function: what it returns is kept, if it is not None.
        folder: for what the processes return.

    Returns:
        What each process returned, by rank.
    """
    # Once, before the processes part.
    import torch.distributed.checkpoint
    import torch.distributed.fsdp
    import torch.distributed.tensor
    import torch.multiprocessing as mp

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(
        _run, (count, port, function, arguments, folder), nprocs=count, start_method="fork"
    )
    files = [folder / f"returned_{rank}.pt" for rank in range(count)]
    return [torch.load(path, weights_only=False) for path in files]


def _run(
    rank: int, count: int, port: int, function: Callable[..., Any], arguments: tuple, folder: Path
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.distributed.init_process_group("gloo")
    try:
        torch.save(function(*arguments), folder / f"returned_{rank}.pt")
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
