"""What a run says: one screen before its first iteration, a line an interval, the rest in files."""

from __future__ import annotations

import io
import logging
import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook as MMEngineLoggerHook
from mmengine.runner import EpochBasedTrainLoop
from mmengine.utils.dl_utils import collect_env
from rich.console import Console

from llmdet.registry import HOOKS

from .progress import training_note
from .terminal import TerminalProgress

logger = logging.getLogger(__name__)

#: The log of a run: 100 MB at most, however long it runs.
ROTATING_FILE = {"type": "RotatingFileHandler", "maxBytes": 20_000_000, "backupCount": 4}

#: Beginnings of messages of mmengine that no reader can act upon.
_NOISE = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    "Distributed training is not used, all SyncBatchNorm",
    "Checkpoints will be saved to",
    "No pre-trained weights for SwinTransformer",
)

#: Iterations of a young run that are shown, between those of the interval.
_FIRST_ITERATIONS = (1, 2, 5, 10, 20, 50)

#: Runs of this process, by the second at which they began.
_BEGUN: Counter[str] = Counter()


class LineFormatter(logging.Formatter):
    """Time and message; the level where it is no mere information."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s  %(message)s", datefmt="%m/%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """The line of a record."""
        if record.levelno > logging.INFO:
            return f"{record.asctime}  {record.levelname}: {record.message}"
        return super().formatMessage(record)


@HOOKS.register_module()
class LoggerHook(MMEngineLoggerHook):
    """mmengine's, which lets no start be silent, and says each thing once.

    Every ``interval`` iterations, and at the last one, there is a line, and the values go to the
    JSON log, TensorBoard and other backends. In between, the first iterations of a run have a line
    only. In runs that count iterations, validations stand at their iteration. What a test measured
    is written by one process, where each would write it.
    """

    log_metric_by_epoch: bool
    _first = 0  # iteration that this process began with
    _nowhere = TerminalProgress(logging.Logger("nowhere"), Console(file=io.StringIO()))

    def before_train(self, runner: Any) -> None:
        """Take the unit of the run."""
        super().before_train(runner)
        self._first = runner.iter
        if is_main_process():
            self._bars_of(runner).start("train", runner.max_iters, runner.iter)
        self.log_metric_by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Log an iteration, if it is its turn."""
        number = runner.iter + 1
        wanted = self.every_n_inner_iters(batch_idx, self.interval)
        wanted = wanted or number == runner.max_iters or self._ends_short_epoch(runner, batch_idx)
        self._bars_of(runner).advance("train", number)
        if not wanted and number - self._first not in _FIRST_ITERATIONS:
            return
        values, line = runner.log_processor.get_log_after_iter(runner, batch_idx, "train")
        self._bars_of(runner).note("train", training_note(values))
        runner.logger.info(line)
        if wanted:
            runner.visualizer.add_scalars(values, step=number, file_path=self.json_log_path)

    def before_val_epoch(self, runner: Any) -> None:
        """Begin a bar."""
        if is_main_process():
            self._bars_of(runner).start("val", len(runner.val_dataloader))

    def before_test_epoch(self, runner: Any) -> None:
        """Begin a bar."""
        if is_main_process():
            self._bars_of(runner).start("test", len(runner.test_dataloader))

    def after_val_iter(self, runner: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Log an iteration of a validation, if it is its turn."""
        self._bars_of(runner).advance("val", batch_idx + 1)
        super().after_val_iter(runner, batch_idx, *args, **kwargs)

    def after_test_iter(self, runner: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Log an iteration of a test, if it is its turn."""
        self._bars_of(runner).advance("test", batch_idx + 1)
        super().after_test_iter(runner, batch_idx, *args, **kwargs)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Log and write what was measured."""
        self._bars_of(runner).finish("val")
        super().after_val_epoch(runner, metrics)

    def _bars_of(self, runner: Any) -> TerminalProgress:
        """The bars of a runner of ours; mmengine's has none."""
        return getattr(runner, "terminal", self._nowhere)

    def _ends_short_epoch(self, runner: Any, batch_idx: int) -> bool:
        if not self.log_metric_by_epoch:
            return False
        short = not self.ignore_last or len(runner.train_dataloader) <= self.interval
        return short and self.end_of_epoch(runner.train_dataloader, batch_idx)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Log and write what was measured."""
        self._bars_of(runner).finish("test")
        if is_main_process():
            super().after_test_epoch(runner, metrics)

    @staticmethod
    def _process_tags(tags: dict[str, Any]) -> dict[str, Any]:
        """Values for JSON; mmengine's would write counts, which its log has as numpy's, as null."""
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in tags.items()}
        return MMEngineLoggerHook._process_tags(plain)


class NoiseFilter(logging.Filter):
    """Drops messages about mmengine's own internals."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the message is shown."""
        return not str(record.msg).startswith(_NOISE)


def own_timestamp(second: str) -> str:
    """The second at which a run began, with a number for a further run of this process.

    mmengine names a run's folder by it, and its logger, which a second run would share.
    """
    _BEGUN[second] += 1
    return second if _BEGUN[second] == 1 else f"{second}_{_BEGUN[second]}"


def share_log(built: logging.Logger) -> None:
    """Give the run's log our form of lines, and let the loggers of ``llmdet`` write to it."""
    built.addFilter(NoiseFilter())
    for handler in built.handlers:
        handler.setFormatter(LineFormatter())
    ours = logging.getLogger("llmdet")
    ours.handlers = list(built.handlers)
    # MMLogger leaves the choice of level to its handlers.
    ours.setLevel(min(handler.level for handler in built.handlers))
    ours.propagate = False


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
