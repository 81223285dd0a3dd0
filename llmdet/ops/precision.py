"""Float32 islands: numbers that must not be rounded to bf16 or fp16, whatever autocast says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


def _to_float32(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64:
        return value.float()
    return value


def float32_island(function: Function) -> Function:
    """Run ``function`` without autocast and with its half-precision tensors cast to float32.

    float64 tensors pass unchanged, so that a model in double precision stays in double
    precision. Meant for sampling locations, box arithmetic, matching costs and losses, where
    the 8 bits of a bf16 mantissa are less than one pixel in a thousand needs.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        device = tensors[0].device.type if tensors else "cpu"
        with torch.autocast(device_type=device, enabled=False):
            return function(
                *(_to_float32(a) for a in args), **{k: _to_float32(v) for k, v in kwargs.items()}
            )

    return wrapper  # type: ignore[return-value]
