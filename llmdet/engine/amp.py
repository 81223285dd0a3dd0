"""Mixed precision: bf16 wherever the device has it, fp16 with loss scaling on request."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from torch import nn

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


def use_mixed_precision(config: Config) -> None:
    """Switch ``config.optim_wrapper`` to mixed precision, in place (``--amp``).

    ``optim_wrapper.dtype`` chooses ``'bfloat16'`` or ``'float16'``. Without it the choice is bf16,
    or fp16 on a CUDA device that has no bf16 arithmetic; what was chosen is logged.

    Raises:
        ConfigError: an unknown dtype, fp16 on a machine without CUDA, or a wrapper of a kind
            that mixed precision cannot replace.
    """
    settings = config.optim_wrapper
    kind = settings.get("type", "OptimWrapper")
    if kind in ("AmpOptimWrapper", "BFloat16OptimWrapper"):
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
    elif dtype == "float16" and torch.cuda.is_available():
        settings.update(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic")
    elif dtype == "float16":
        raise ConfigError(
            "--amp with optim_wrapper.dtype='float16' needs a CUDA device; on CPU only 'bfloat16' "
            "is possible."
        )
    else:
        raise ConfigError(f"optim_wrapper.dtype is {dtype!r}; choose 'bfloat16' or 'float16'.")
    logger.info("--amp: forward passes run in %s", dtype)


def _default_dtype() -> str:
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "float16"
    return "bfloat16"
