"""Mixed precision: bf16 wherever the device has it, fp16 with loss scaling on request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.registry import OPTIM_WRAPPERS

from .scalars import DeferredOptimWrapper

logger = logging.getLogger(__name__)


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(DeferredOptimWrapper):
    """Optimizer wrapper that runs the forward pass under bf16 autocast, on CUDA and on CPU.

    bf16 has the exponent range of float32, so that gradients need no loss scaling; mmengine's
    ``AmpOptimWrapper`` would scale them all the same and does not run on CPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass of ``model``, on the device that holds its parameters."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield


@OPTIM_WRAPPERS.register_module()
class Float16OptimWrapper(DeferredOptimWrapper):
    """Optimizer wrapper that runs the forward pass under fp16 autocast, on CUDA and on CPU.

    Gradients of fp16 are lost below 6e-8: losses are multiplied by a scale that grows until
    gradients are infinite; such an update is left out, and the scale halved.

    Args:
        init_scale: of the first step.
        growth_interval: updates without an infinity after which the scale doubles.
    """

    def __init__(
        self,
        *args: Any,
        init_scale: float = 2.0**16,
        growth_interval: int = 2000,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        device = self.optimizer.param_groups[0]["params"][0].device.type
        self.loss_scaler = torch.amp.GradScaler(
            device, init_scale=init_scale, growth_interval=growth_interval
        )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass of ``model``, on the device that holds its parameters."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, dtype=torch.float16):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Compute gradients of the scaled loss."""
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        """Update the weights, unless a gradient is infinite, and adapt the scale."""
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state and the scale."""
        return {**super().state_dict(), "loss_scaler": self.loss_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Read back what :meth:`state_dict` gave, or an optimizer's state without a scale."""
        state_dict = dict(state_dict)
        if "loss_scaler" in state_dict:
            self.loss_scaler.load_state_dict(state_dict.pop("loss_scaler"))
        super().load_state_dict(state_dict)


def use_mixed_precision(config: Config) -> None:
    """Switch ``config.optim_wrapper`` to mixed precision, in place (``--amp``).

    ``optim_wrapper.dtype`` chooses ``'bfloat16'`` or ``'float16'``. Without it the choice is bf16,
    or fp16 on a CUDA device that has no bf16 arithmetic; what was chosen is logged.

    Raises:
        ConfigError: an unknown dtype, fp16 beside a strategy, or a wrapper of a kind that mixed
            precision cannot replace.
    """
    settings = config.optim_wrapper
    kind = settings.get("type", "OptimWrapper")
    if kind in ("AmpOptimWrapper", "BFloat16OptimWrapper", "Float16OptimWrapper"):
        logger.info("--amp: the config's own %s stays in charge", kind)
        return
    if kind != "OptimWrapper":
        raise ConfigError(
            f"--amp replaces an optim_wrapper of type 'OptimWrapper', this config has {kind!r}: "
            "set its precision in the config instead."
        )
    dtype = settings.pop("dtype", None) or _default_dtype()
    if dtype == "bfloat16":
        settings.type = "BFloat16OptimWrapper"
    elif dtype == "float16":
        if config.get("strategy") is not None:
            raise ConfigError(
                "--amp with optim_wrapper.dtype='float16' finds infinities on one process, which "
                "a strategy leaves with a part of the gradients: take 'bfloat16'"
            )
        settings.type = "Float16OptimWrapper"
    else:
        raise ConfigError(f"optim_wrapper.dtype is {dtype!r}; choose 'bfloat16' or 'float16'.")
    logger.info("--amp: forward passes run in %s", dtype)


def _default_dtype() -> str:
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "float16"
    return "bfloat16"
