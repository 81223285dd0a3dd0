"""Losses and gradient norms reach the log without the host waiting for the device in every step.

mmengine's message hub reads each of about forty values by itself, and the norm of the gradients
between the backward pass and the optimizer's step; each time the host waits until the device has
done all it was given. Here values stay on the device until a log or a checkpoint needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OptimWrapper
from mmengine.runner import LogProcessor
from torch import Tensor

from llmdet.registry import HOOKS, LOG_PROCESSORS, OPTIM_WRAPPERS

from .progress import images_of, training_line

_KEY = "deferred_scalars"
_IMAGES = "images_of_step"  # of all processes
_KEPT_VALUES = 1000  # of each history of training


class DeferredScalars:
    """Values of several steps that a message hub is to have, read from the device together.

    Args:
        hub: what they are written to.
    """

    def __init__(self, hub: MessageHub) -> None:
        self._hub = hub
        self._names: list[str] = []
        self._values: list[Tensor] = []
        #: Whether whoever reads the hub calls :meth:`flush` before.
        self.deferring = False

    def add(self, values: Mapping[str, Any]) -> None:
        """Append one value to each named history, now or at the next :meth:`flush`.

        Args:
            values: numbers, and tensors of one element, which are deferred.
        """
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        for name in values.keys() - tensors.keys():
            self._hub.update_scalar(name, values[name])
        if not tensors:
            return
        device = next((v.device for v in tensors.values() if v.device.type != "cpu"), None)
        flat = [value.detach().reshape(()).to(device) for value in tensors.values()]
        self._names += tensors
        self._values.append(torch.stack(flat))
        # Logs list values in the order in which their histories began.
        if not self.deferring or any(name not in self._hub.log_scalars for name in tensors):
            self.flush()

    def flush(self) -> bool:
        """Write what was deferred into the hub by one transfer; False if there was nothing."""
        if not self._values:
            return False
        histories: dict[str, list[float]] = {}
        for name, value in zip(self._names, torch.cat(self._values).tolist(), strict=True):
            histories.setdefault(name, []).append(value)
        self._names, self._values = [], []
        for name, (first, *others) in histories.items():
            self._hub.update_scalar(name, first)
            if others:
                self._extend(name, others)
        return True

    def _extend(self, name: str, values: list[float]) -> None:
        """Append several values at once; one by one, each would copy the whole history."""
        before = self._hub.get_scalar(name)
        log, counts = before.data
        kept = before.max_length
        self._hub.log_scalars[name] = HistoryBuffer(
            np.append(log, values)[-kept:],
            np.append(counts, np.ones_like(counts, shape=len(values)))[-kept:],
            max_length=kept,
        )


def scalars_of(hub: MessageHub) -> DeferredScalars:
    """The deferred values of a message hub."""
    if hub.get_info(_KEY) is None:
        hub.update_info(_KEY, DeferredScalars(hub), resumed=False)
    return hub.get_info(_KEY)


@HOOKS.register_module(name="RuntimeInfoHook")
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's hook; losses reach the message hub when they are logged or saved.

    Other readers of the hub call ``scalars_of(hub).flush()`` before.
    """

    def before_train(self, runner: Any) -> None:
        """Defer, unless another class than ours processes logs."""
        super().before_train(runner)
        scalars = scalars_of(runner.message_hub)
        scalars.deferring = isinstance(runner.log_processor, FlushingLogProcessor)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Take the losses of a step."""
        values = {f"train/{name}": value for name, value in (outputs or {}).items()}
        scalars_of(runner.message_hub).add(values)
        images = images_of(data_batch) * get_world_size()
        runner.message_hub.update_info(_IMAGES, images, resumed=False)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Save the log history whole."""
        if scalars_of(runner.message_hub).flush():
            checkpoint["message_hub"] = runner.message_hub.state_dict()

    def after_train(self, runner: Any) -> None:
        """Leave nothing behind."""
        scalars_of(runner.message_hub).flush()
        super().after_train(runner)


@LOG_PROCESSORS.register_module(name="LogProcessor")
class FlushingLogProcessor(LogProcessor):
    """mmengine's log processor; reads deferred values first, and says training in one line.

    Histories of training keep what their windows need and no more, so that neither memory nor
    checkpoints grow with the iterations; the JSON log has them whole.
    """

    def get_log_after_iter(self, runner: Any, batch_idx: int, mode: str) -> tuple[dict, str]:
        """Values and log line of an iteration."""
        hub = runner.message_hub
        scalars_of(hub).flush()
        if mode != "train":
            return super().get_log_after_iter(runner, batch_idx, mode)
        _shorten_histories(hub, self._longest_window())
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        lead = "train/" if self.log_with_hierarchy else ""
        images, seconds = hub.get_info(_IMAGES, 0), tag.get(f"{lead}time")
        if images and seconds:
            tag[f"{lead}images_per_second"] = images / seconds
        values = {name.removeprefix("train/"): value for name, value in tag.items()}
        head = line[: line.index("]  ") + 1]
        return tag, training_line(head, values, hub.runtime_info.get("eta"))

    def _longest_window(self) -> float:
        """Values that some statistic reads."""
        windows = [entry.get("window_size", 1) for entry in self.custom_cfg]
        if any(isinstance(window, str) for window in windows):  # "global", "epoch"
            return float("inf")
        return max(_KEPT_VALUES, self.window_size, *windows)

    def get_log_after_epoch(
        self, runner: Any, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict, str]:
        """Log line of an epoch."""
        scalars_of(runner.message_hub).flush()
        return super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)


def _shorten_histories(hub: MessageHub, kept: float) -> None:
    for name, history in hub.log_scalars.items():
        if name.startswith("train/") and history.max_length > kept:
            log, counts = (values[-int(kept) :] for values in history.data)
            hub.log_scalars[name] = HistoryBuffer(log, counts, max_length=int(kept))


@OPTIM_WRAPPERS.register_module(name="OptimWrapper")
class DeferredOptimWrapper(OptimWrapper):
    """mmengine's optimizer wrapper; the optimizer does not wait for the norm of the gradients."""

    #: Whether updates are left out whose gradients are no finite numbers: the host looks then.
    skips_infinite = False

    def step(self, **kwargs: Any) -> None:
        """Update the weights, unless nothing could be learned from the gradients."""
        if self.skips_infinite and not self._are_gradients_finite():
            return
        super().step(**kwargs)

    def _are_gradients_finite(self) -> bool:
        """The same answer on all processes, which have the same gradients, or parts of them."""
        groups = self.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return True
        norm = torch.nn.utils.get_total_norm(gradients, norm_type=float("inf"))
        whole = getattr(norm, "full_tensor", None)
        return bool(torch.isfinite(norm if whole is None else whole()))

    def _clip_grad(self) -> None:
        parameters = [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad and parameter.grad is not None
        ]
        if not parameters:
            return
        norm = self.clip_func(parameters, **self.clip_grad_kwargs)
        if norm is not None:
            whole = getattr(norm, "full_tensor", None)  # of gradients that are spread
            value = norm if whole is None else whole()
            scalars_of(self.message_hub).add({f"train/{self.grad_name}": value})
