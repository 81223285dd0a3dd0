"""torchrun that ends with the message and the exit code of the process that failed first.

Called by launch.sh. Torchrun's own traceback, and what processes say that lost their connection to
the one that failed, would bury why. After Ctrl-C the processes have time to write
a checkpoint; at a second one they are killed.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

# What runs with `python tools/launch.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch.distributed import DistNetworkError, run
from torch.distributed.elastic.multiprocessing import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

#: Time to finish an iteration and write a checkpoint.
SECONDS_TO_SAVE = 1800

_close = PContext.close


def close(context: PContext, death_sig: Any = None, timeout: int = 30) -> None:
    """End the processes; torchrun would wait for 30 seconds."""
    if death_sig != signal.SIGINT:
        _close(context, death_sig, timeout)
        return
    try:
        _close(context, death_sig, SECONDS_TO_SAVE)
    except SignalException:
        _close(context, signal.SIGKILL, timeout)
        raise


def main() -> int:
    """Start the processes; arguments are torchrun's."""
    PContext.close = close  # type: ignore[method-assign]
    for module in ("agent.server.api", "multiprocessing.api"):  # they announce every signal
        logging.getLogger(f"torch.distributed.elastic.{module}").setLevel(logging.ERROR)
    try:
        run.run(run.parse_args(None))
    except ChildFailedError as error:
        rank, failure = first_failure(error.failures)
        code = failure.exitcode
        sys.stderr.write(f"rank {rank} ended the run: {reason(failure)}\n")
        return code if code > 0 else 128 - code  # killed by a signal, as shells report it
    except SignalException as error:
        return 128 + int(error.sigval)
    except DistNetworkError as error:
        first_line = str(error).partition("\n")[0]
        sys.stderr.write(
            "error: the processes cannot meet where PORT and MASTER_ADDR say, which another run "
            f"may use ({first_line}); choose another PORT, or on one machine leave it out\n"
        )
        return 2
    return 0


def first_failure(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """The process that failed by itself, and not because another one did.

    Args:
        failures: by rank, in the order in which they were noticed.
    """

    def order(rank: int) -> tuple[bool, float]:
        failure = failures[rank]
        record = failure.error_file_data
        ended = -failure.exitcode == signal.SIGTERM  # by torchrun, when another one had failed
        # Who left no record is noticed after its end, in whole seconds.
        return ended or record.get("lost_another", False), record.get(
            "seconds", failure.timestamp + 1
        )

    rank = min(failures, key=order)
    return rank, failures[rank]


def reason(failure: ProcessFailure) -> str:
    """Why a process ended, in one sentence."""
    record = failure.error_file_data
    if failure.exitcode < 0:
        killed = f"killed by {signal.Signals(-failure.exitcode).name}"
        if -failure.exitcode == signal.SIGKILL:
            killed += ", which is what the system does where memory runs out"
        return killed
    message = record["message"]
    if "seconds" not in record:
        return f"exit code {failure.exitcode}; what it said is above"
    text = message["message"]
    if record["expected"]:
        return text
    return f"{record['kind']}: {text.partition(os.linesep)[0]}; its traceback is above"


if __name__ == "__main__":
    sys.exit(main())
