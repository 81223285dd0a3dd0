"""Runs that diverge end with a sentence, before they write over a checkpoint that is good."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from llmdet.errors import ConfigError, DivergenceError
from llmdet.registry import HOOKS

from .replay import save_batch
from .scalars import DeferredOptimWrapper

logger = logging.getLogger(__name__)

#: Images and losses that a message lists.
_LISTED = 8


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends a run of which a loss or a trained weight is infinite or no number, or skips the step.

    Losses stay on the device, where each step leaves one small tensor; the host looks at them
    together, every `interval` iterations, before each checkpoint and at the end. Until then their
    batches are kept, and the one at fault is saved. Weights are looked at before they are written.

    Args:
        interval: iterations between two looks.
        action: "stop", or "skip": look at every step, leave out updates whose gradients are no
            finite numbers, and go on.
        most_skipped: with "skip", so many in a row end the run all the same.
    """

    def __init__(self, interval: int = 10, action: str = "stop", most_skipped: int = 10) -> None:
        if action not in ("stop", "skip"):
            raise ConfigError(f"FiniteLossHook.action is {action!r}; choose 'stop' or 'skip'")
        self.interval = 1 if action == "skip" else interval
        self.action, self.most_skipped = action, most_skipped
        self._in_a_row = 0
        self._steps: list[tuple[int, list[str], Any]] = []  # iteration, losses, batch
        self._values: list[Tensor] = []  # of the same steps
        self._work_dir: str | None = None

    def before_train(self, runner: Runner) -> None:
        """Tell the optimizer what to leave out."""
        self._work_dir = runner.work_dir
        if self.action == "skip":
            if not isinstance(runner.optim_wrapper, DeferredOptimWrapper):
                kind = type(runner.optim_wrapper).__name__
                raise ConfigError(f"FiniteLossHook(action='skip') knows no optim_wrapper {kind!r}")
            runner.optim_wrapper.skips_infinite = True

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the losses of an iteration."""
        losses = {name: v for name, v in (outputs or {}).items() if isinstance(v, Tensor)}
        if losses:
            self._steps.append((runner.iter + 1, list(losses), data_batch))
            flat = [value.detach().reshape(()).float() for value in losses.values()]
            self._values.append(torch.stack(flat))
        if self.every_n_train_iters(runner, self.interval):
            self.check_losses()

    def before_checkpoint(self, runner: Runner) -> None:
        """Look at the losses on every rank."""
        self.check_losses()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Look at what is to be written.

        Raises:
            DivergenceError: names the first weight that is no finite number.
        """
        self.check_losses()
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
        for name, value in checkpoint["state_dict"].items():
            if name in trained and not torch.isfinite(value).all():
                raise DivergenceError(
                    f"iteration {runner.iter + 1}: the weight '{name}' has values that are "
                    f"infinite or no numbers, while the losses are finite; {_REMEDY}"
                )

    def after_train(self, runner: Runner) -> None:
        """Look at what came since the last look."""
        self.check_losses()

    def check_losses(self) -> None:
        """Look at the losses that came since the last look.

        Raises:
            DivergenceError: names the first iteration with a loss that is no finite number, these
                losses, and the images of its batch on this rank.
        """
        steps, values = self._steps, self._values
        self._steps, self._values = [], []
        if not values:
            return
        if bool(torch.isfinite(torch.cat(values)).all()):
            self._in_a_row = 0
            return
        for (iteration, names, batch), row in zip(steps, values, strict=True):
            wrong = [
                f"{name} is {value}"
                for name, value in zip(names, row.tolist(), strict=True)
                if not abs(value) < float("inf")
            ]
            if wrong:
                self._report(iteration, wrong, batch)
                return

    def _report(self, iteration: int, wrong: list[str], batch: Any) -> None:
        images = _images(batch)
        where = f" for the images {_listed(images)}" if images else ""
        what = f"iteration {iteration}: {_listed(wrong)}{where}"
        if self._work_dir is not None:
            path = save_batch(self._work_dir, iteration, get_rank(), batch)
            what = f"{what}; the batch is in {path}, for tools/analysis/replay.py"
        self._in_a_row += 1
        if self.action == "stop" or self._in_a_row >= self.most_skipped:
            raise DivergenceError(f"{what}; {_REMEDY}")
        logger.warning("%s; this update is left out", what)


_REMEDY = (
    "stopped before a checkpoint was overwritten: look at these data, lower the learning rate or "
    "set optim_wrapper.clip_grad, and continue with --resume"
)


def _images(data_batch: Any) -> list[str]:
    samples = data_batch.get("data_samples", ()) if isinstance(data_batch, Mapping) else ()
    return [str(getattr(sample, "img_path", "without a name")) for sample in samples]


def _listed(entries: list[str]) -> str:
    more = len(entries) - _LISTED
    return ", ".join(entries[:_LISTED]) + (f" and {more} more" if more > 0 else "")
