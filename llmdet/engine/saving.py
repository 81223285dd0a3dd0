"""Checkpoints that outlive a kill at any moment, a full disk and a move to another folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from llmdet.errors import CheckpointError
from llmdet.registry import HOOKS
from llmdet.utils.whole_files import TEMPORARY, written_whole

from .checkpoint import POINTER


@contextmanager
def checkpoint_file(path: str | Path) -> Iterator[Path]:
    """Give a file name to write to, which becomes ``path`` once everything is on the disk.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written; nothing is left behind,
            and what had the name before still has it.
    """
    with raising_for_full_disks(Path(path)), written_whole(path, durable=True) as temporary:
        yield temporary


@contextmanager
def raising_for_full_disks(path: Path) -> Iterator[None]:
    """Turn errors of writing ``path`` into a CheckpointError that says what to do."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"'{path}' could not be written ({error.strerror or error}); checkpoints written "
            "before are as they were: make room, then continue with --resume"
        ) from error


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's, which deletes old checkpoints only when the new one stands.

    ``last_checkpoint`` is written last, and names the file as seen from its folder. Before every
    checkpoint, and on every rank, hooks that have a stage ``before_checkpoint`` may refuse.

    With ``interval="validation"`` a checkpoint is written whenever the model is validated.
    """

    interval: Any

    file_backend: Any
    by_epoch: bool
    filename_tmpl: str
    max_keep_ckpts: int

    def before_train(self, runner: Runner) -> None:
        """Prepare, and remove what a killed run left half-written."""
        if self.interval == "validation":
            self.interval = runner.train_loop.val_interval  # type: ignore[attr-defined]
        super().before_train(runner)
        if is_main_process():
            for half in Path(runner.work_dir).glob(f"*{TEMPORARY}"):
                if half.is_dir():
                    shutil.rmtree(half)
                else:
                    half.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        runner.call_hook("before_checkpoint")
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            with checkpoint_file(Path(runner.work_dir) / POINTER) as pointer:
                pointer.write_text(_seen_from(runner.work_dir, str(self.last_ckpt)))
            for old in outdated:
                _remove(self.file_backend, self.file_backend.join_path(self.out_dir, old))

    def save_after(self, runner: Runner, iteration: int) -> str:
        """Save within an interval, also within an epoch, as ``iter_<iteration>.pth``.

        Args:
            iteration: how many are done.

        Returns:
            The path of the checkpoint; the one of its interval where that was just written.
        """
        name = f"iter_{iteration}.pth"
        path = self.file_backend.join_path(self.out_dir, name)
        if self.last_ckpt == path:
            return path
        settings = self.by_epoch, self.filename_tmpl, self.max_keep_ckpts
        if self.by_epoch:  # one more than the kept ones, which are numbered by epoch
            self.by_epoch, self.filename_tmpl, self.max_keep_ckpts = False, "iter_{}.pth", -1
        try:
            meta = {"epoch": runner.epoch, "iter": iteration}
            self._save_checkpoint_with_step(runner, iteration, meta)
        finally:
            self.by_epoch, self.filename_tmpl, self.max_keep_ckpts = settings
        return path

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return
        backend = self.file_backend
        self.file_backend = removals = _LateRemovals(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        for path in removals.paths - set(self._best_paths()):
            _remove(backend, path)

    def _best_paths(self) -> list[str]:
        if len(self.key_indicators) == 1:
            return [str(self.best_ckpt_path)]
        return [str(path) for path in self.best_ckpt_path_dict.values()]


class _LateRemovals:
    """A file backend that only notes what is to be removed."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.paths: set[str] = set()

    def remove(self, path: str) -> None:
        self.paths.add(path)

    rmtree = remove

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def _remove(backend: Any, path: str) -> None:
    if backend.isfile(path):
        backend.remove(path)
    elif backend.isdir(path):  # of several processes
        backend.rmtree(path)


def _seen_from(folder: str, path: str) -> str:
    return path if "://" in path else os.path.relpath(path, folder)
