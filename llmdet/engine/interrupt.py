"""Ctrl-C in a training: it stops after a whole iteration, with a checkpoint to continue from."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from llmdet.errors import TrainingInterrupted
from llmdet.registry import HOOKS

from .saving import CheckpointHook

_SEEN = b"\nstopping after this iteration, with a checkpoint; Ctrl-C again stops at once\n"


@HOOKS.register_module()
class InterruptHook(Hook):
    """Ends a training at the first Ctrl-C (SIGINT) as if it had been that long, with a checkpoint.

    All processes stop after the same iteration, whichever of them got the signal. A process that
    trains alone stops within a validation too, which --resume does not repeat; several finish it.
    The second signal ends a process at once.
    """

    priority = "LOWEST"  # after the checkpoint and the log of the same iteration

    def __init__(self) -> None:
        self._requested = False
        self._stop_at: int | None = None
        self._handler: Callable[..., Any] | int | None = None

    def before_train(self, runner: Runner) -> None:
        """Take the signal; workers, which are forked later, then ignore the first one."""
        self._requested, self._stop_at = False, None
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._request)

    def _request(self, number: int, frame: Any) -> None:
        self._requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if is_main_process() and torch.utils.data.get_worker_info() is None:
            os.write(2, _SEEN)  # sys.stderr may be in the middle of a line

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop, where that was agreed upon.

        Raises:
            TrainingInterrupted: says what was saved and how to continue.
        """
        done = runner.iter + 1
        steps = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
        if done < runner.max_iters and done % steps == 0 and self._agreed(runner, done, steps):
            self._stop(runner, done)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop a process that trains alone; raises as :meth:`after_train_iter`."""
        if self._requested and not torch.distributed.is_initialized():
            self._stop(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Give the signal back."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None

    def _agreed(self, runner: Runner, done: int, steps: int) -> bool:
        if not torch.distributed.is_initialized():
            return self._requested
        store = torch.distributed.distributed_c10d._get_default_store()
        key = f"stop_{runner.timestamp}"
        if self._requested and self._stop_at is None:
            # Gradients are exchanged every `steps` iterations: no process is further ahead.
            store.compare_set(key, "", str(done + steps))
        if self._stop_at is None and store.check([key]):
            self._stop_at = int(store.get(key))
        return self._stop_at is not None and done >= self._stop_at

    def _stop(self, runner: Runner, done: int) -> None:
        saved = "nothing was saved, as the config has no CheckpointHook"
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                path = hook.save_after(runner, done)
                saved = f"saved {path}; the same command with --resume continues"
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # until it is saved
        runner.visualizer.close()
        self.after_train(runner)
        raise TrainingInterrupted(f"stopped after iteration {done}; {saved}")
