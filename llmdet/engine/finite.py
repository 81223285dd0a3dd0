"""Runs that diverge end with a sentence, before they write over a checkpoint that is good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from llmdet.errors import DivergenceError
from llmdet.registry import HOOKS

#: Images and losses that a message lists.
_LISTED = 8


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Ends a run of which a loss or a trained weight is infinite or no number.

    Losses stay on the device, where each step leaves one small tensor; the host looks at them
    together, every `interval` iterations, before each checkpoint and at the end. Weights are looked
    at before they are written.

    Args:
        interval: iterations between two looks.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._steps: list[tuple[int, list[str], list[str]]] = []  # iteration, losses, images
        self._values: list[Tensor] = []  # of the same steps

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
            self._steps.append((runner.iter + 1, list(losses), _images(data_batch)))
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
        if not values or bool(torch.isfinite(torch.cat(values)).all()):
            return
        for (iteration, names, images), row in zip(steps, values, strict=True):
            wrong = [
                f"{name} is {value}"
                for name, value in zip(names, row.tolist(), strict=True)
                if not abs(value) < float("inf")
            ]
            if wrong:
                where = f" for the images {_listed(images)}" if images else ""
                raise DivergenceError(f"iteration {iteration}: {_listed(wrong)}{where}; {_REMEDY}")


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
