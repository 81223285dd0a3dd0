"""What a run says before its first iteration, one screen with the rest in files, and at its end."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook as MMEngineLoggerHook
from mmengine.utils.dl_utils import collect_env

from llmdet.registry import HOOKS

logger = logging.getLogger(__name__)

#: The log of a run: 100 MB at most, however long it runs.
ROTATING_FILE = {"type": "RotatingFileHandler", "maxBytes": 20_000_000, "backupCount": 4}

#: Beginnings of messages of mmengine that no reader can act upon.
_NOISE = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    "Distributed training is not used, all SyncBatchNorm",
)


@HOOKS.register_module()
class LoggerHook(MMEngineLoggerHook):
    """mmengine's; the numbers of a test are written by one process, where each would write them."""

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Log and write what was measured."""
        if is_main_process():
            super().after_test_epoch(runner, metrics)


class NoiseFilter(logging.Filter):
    """Drops messages about mmengine's own internals."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is shown."""
        return not str(record.msg).startswith(_NOISE)


@contextmanager
def file_messages_to(target: logging.Logger, path: str | Path) -> Iterator[None]:
    """Send what ``target`` writes to files into another file meanwhile."""
    before = list(target.handlers)
    other = logging.FileHandler(path)
    target.handlers = [other if isinstance(h, logging.FileHandler) else h for h in before]
    try:
        yield
    finally:
        target.handlers = before
        other.close()


def report_environment(log_dir: str | Path, runtime: dict[str, Any], *, write: bool) -> None:
    """Log on one line what a run runs on; ``write`` the rest to a file in ``log_dir``."""
    where = "CPU"
    if torch.cuda.is_available():
        where = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    logger.info(
        "Python %s, PyTorch %s, %s; %d processes, seed %s",
        platform.python_version(),
        torch.__version__,
        where,
        runtime["world_size"],
        runtime["seed"],
    )
    if write:
        entries = collect_env() | runtime
        path = Path(log_dir) / "environment.txt"
        path.write_text("".join(f"{key}: {value}\n" for key, value in entries.items()))
