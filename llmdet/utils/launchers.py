"""Several processes: which of them this one is, when it must end, and which of them failed first.

Imports nothing heavy, as the command-line programs that use it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from llmdet.errors import ConfigError, LLMDetError, sentence_of
from llmdet.utils.whole_files import written_whole

#: What each way of starting several processes leaves in the environment.
_LAUNCHED_WITH = {
    "pytorch": ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODELIST"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
#: Ports that jobs of one machine are spread over; the kernel gives others to programs that ask.
_FIRST_PORT, _PORTS = 15000, 15000
#: Of prctl: the signal that a process gets when its parent has ended (Linux).
_PR_SET_PDEATHSIG = 1
#: What a process says that lost its connection to another one, which failed before it.
_LOST = re.compile(
    r"Connection closed by peer|Connection reset by peer|Broken pipe|Socket Timeout|recvValue|"
    r"Connection refused|remote process exited|NCCL communicator was aborted"
)


def join_launcher(launcher: str, environment: MutableMapping[str, str] | None = None) -> str:
    """Let a process take its place among those that a launcher started.

    What Slurm or MPI says is written in the variables that torchrun sets, so that everything behind
    this knows one way only.

    Args:
        launcher: value of ``--launcher``.
        environment: read and extended; of this process by default.

    Returns:
        The launcher that the runner is given: "none" or "pytorch".

    Raises:
        ConfigError: the launcher did not set the variables that it sets.
    """
    environment = os.environ if environment is None else environment
    if launcher == "none":
        return launcher
    missing = [name for name in _LAUNCHED_WITH[launcher] if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"--launcher {launcher}: {', '.join(missing)} is not set in the environment; start "
            "the program with dist_train.sh, dist_test.sh or torchrun (pytorch), srun (slurm) or "
            "mpirun (mpi), or leave --launcher out"
        )
    if launcher == "slurm":
        environment.update(_slurm_places(environment))
    elif launcher == "mpi":
        environment.update(_mpi_places(environment))
    if "TORCHELASTIC_RUN_ID" in environment:
        end_with_parent()
    return "pytorch"


def _slurm_places(environment: Mapping[str, str]) -> dict[str, str]:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_NODELIST"]
    job = int(environment.get("SLURM_JOB_ID", "0"))
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": _device(environment, environment["SLURM_LOCALID"]),
        "MASTER_ADDR": environment.get("MASTER_ADDR") or first_host(nodes),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(_FIRST_PORT + job % _PORTS),
    }


def _mpi_places(environment: Mapping[str, str]) -> dict[str, str]:
    size = environment["OMPI_COMM_WORLD_SIZE"]
    address = environment.get("MASTER_ADDR")
    if not address and environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", size) != size:
        raise ConfigError(
            "--launcher mpi: MASTER_ADDR is not set in the environment, and the processes are on "
            "several machines; pass the name of the first one (mpirun -x MASTER_ADDR=...)"
        )
    return {
        "RANK": environment["OMPI_COMM_WORLD_RANK"],
        "WORLD_SIZE": size,
        "LOCAL_RANK": _device(environment, environment["OMPI_COMM_WORLD_LOCAL_RANK"]),
        "MASTER_ADDR": address or "127.0.0.1",
        "MASTER_PORT": environment.get("MASTER_PORT") or str(_FIRST_PORT),
    }


def _device(environment: Mapping[str, str], local_rank: str) -> str:
    """The device of a process; where the launcher shows it one only, that is number 0."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    return "0" if visible and "," not in visible else local_rank


def first_host(nodes: str) -> str:
    """The first machine of a list as Slurm writes it: ``gpu[07-09,12],cpu1`` gives ``gpu07``."""
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", nodes).split(",")[0]


def end_with_parent(parent: int | None = None) -> None:
    """Have the kernel end this process when the one that started it has ended (Linux).

    Args:
        parent: its process id, where it is known; if it has ended already, so does this process.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def recorded_failure() -> Iterator[None]:
    """Leave what failed, and when, in the file that torchrun names for it."""
    try:
        yield
    except Exception as error:
        if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            # torchrun may read it at any time, and ends with a traceback where it is not whole.
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps(_failure(error)))
        raise


def _failure(error: Exception) -> dict[str, Any]:
    now = time.time()
    text = sentence_of(error) if isinstance(error, LLMDetError) else str(error)
    trace = {"py_callstack": traceback.format_exc(), "timestamp": str(int(now))}
    return {
        "message": {"message": text, "extraInfo": trace},  # what torchrun reads
        "seconds": now,
        "kind": type(error).__name__,
        "expected": isinstance(error, LLMDetError),
        "lost_another": bool(_LOST.search(text)),
    }
