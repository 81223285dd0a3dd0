"""Multi-scale deformable attention: bilinear samples of value maps, summed by weight.

Deformable DETR (arXiv 2010.04159), section 4.1. There is one function for callers,
:func:`deformable_attention`, and four implementations, which give the same numbers:

=============== ============================================ =====================================
name            what it is                                   chosen
=============== ============================================ =====================================
triton          one kernel forward, one backward             on CUDA devices, where Triton is
embedding_bag   pixels as rows of a table, no gradients      on the CPU where no gradient is wanted
gather          pixels as rows of a table, plain operators   while exporting
grid_sample     the reference, :mod:`.reference`             otherwise, and for float64
=============== ============================================ =====================================

``LLMDET_DEFORMABLE_ATTENTION=name`` in the environment, or :func:`use_implementation` for a block
of code, takes another one. Gradients for values are summed in no fixed order on CUDA unless
``torch.use_deterministic_algorithms(True)`` is set.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from llmdet.errors import ConfigError
from llmdet.ops.deformable_attention import operator
from llmdet.ops.deformable_attention.gather import sample_with_gather
from llmdet.ops.deformable_attention.lookup import sample_with_embedding_bag
from llmdet.ops.deformable_attention.reference import sample_with_grid_sample

IMPLEMENTATIONS = ("triton", "embedding_bag", "gather", "grid_sample")
ENVIRONMENT_VARIABLE = "LLMDET_DEFORMABLE_ATTENTION"

#: Written in operators of torch; they have gradients, run on any device and in float64.
_PLAIN = {"gather": sample_with_gather, "grid_sample": sample_with_grid_sample}
_HAS_TRITON = importlib.util.find_spec("triton") is not None
_INTERPRETS_TRITON = os.environ.get("TRITON_INTERPRET") == "1"
_requested = os.environ.get(ENVIRONMENT_VARIABLE) or None


def deformable_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Sample ``value`` at ``locations`` and sum the samples by ``weights``.

    Args:
        value: [B, S, heads, C / heads] projected values of all levels, one after the other.
        shapes: (height, width) of each level; their products add up to S.
        locations: [B, Q, heads, levels, P, 2] (x, y) in 0..1 of the level's map, where 0 and 1
            are the outer edges of its first and last pixel. What lies outside reads zero.
        weights: [B, Q, heads, levels, P], summing to one over levels and points.

    Returns:
        [B, Q, C] of ``value``'s dtype. Locations, weights and sums are float32 (or float64)
        under any autocast.

    Raises:
        ConfigError: the requested implementation cannot run on these tensors.
    """
    tensors = (value, locations, weights)
    wants_gradients = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    name = choose_implementation(value.device, value.dtype, wants_gradients)
    compiling = torch.compiler.is_compiling()
    if not compiling:
        _log_once(name, value.device.type)
    if name in _PLAIN:
        return _PLAIN[name](value, shapes, locations, weights).to(value.dtype)
    if name == "embedding_bag" and not compiling:
        # The operator's first call imports the compiler, which takes a second.
        return sample_with_embedding_bag(value, shapes, locations.float(), weights.float())
    sizes = [side for shape in shapes for side in shape]
    return operator.sample(value, sizes, locations.float(), weights.float(), name)


def choose_implementation(
    device: torch.device | str, dtype: torch.dtype = torch.float32, wants_gradients: bool = False
) -> str:
    """Name of the implementation that :func:`deformable_attention` takes.

    Args:
        device: of the values.
        dtype: of the values.
        wants_gradients: whether there will be a backward pass.

    Raises:
        ConfigError: the requested implementation is unknown, or cannot run on these tensors.
    """
    device = torch.device(device)
    if _requested is not None:
        _check_request(_requested, device, dtype, wants_gradients)
        return _requested
    if _is_traced():
        return "gather"
    if dtype == torch.float64:
        return "grid_sample"
    if device.type == "cuda" and _HAS_TRITON:
        return "triton"
    if device.type == "cpu" and not wants_gradients:
        return "embedding_bag"
    return "grid_sample"


@contextmanager
def use_implementation(name: str) -> Iterator[None]:
    """Take the named implementation while the block runs, in all threads; for tests, benchmarks.

    Raises:
        ConfigError: there is none of this name.
    """
    global _requested
    before, _requested = _requested, name
    try:
        _check_name(name)
        yield
    finally:
        _requested = before


def _check_name(name: str) -> None:
    if name not in IMPLEMENTATIONS:
        raise ConfigError(
            f"deformable attention has no implementation {name!r}: "
            f"{ENVIRONMENT_VARIABLE} may be one of {', '.join(IMPLEMENTATIONS)}."
        )


def _check_request(
    name: str, device: torch.device, dtype: torch.dtype, wants_gradients: bool
) -> None:
    _check_name(name)
    reason = None
    if name not in _PLAIN and dtype == torch.float64:
        reason = "does not compute in float64"
    elif name == "embedding_bag" and wants_gradients:
        reason = "has no gradients"
    elif name == "embedding_bag" and device.type != "cpu":
        reason = f"runs on the CPU, not on {device}"
    elif name == "triton" and not _HAS_TRITON:
        reason = "needs the package triton"
    elif name == "triton" and device.type != "cuda" and not _INTERPRETS_TRITON:
        reason = f"runs on CUDA devices, not on {device}"
    if reason:
        raise ConfigError(
            f"deformable attention's implementation {name!r}, which was requested by "
            f"{ENVIRONMENT_VARIABLE} or use_implementation, {reason}: request 'grid_sample', "
            "or nothing, to have the fitting one chosen."
        )


def _is_traced() -> bool:
    """Whether the model is being exported, to programs that know no operators of ours."""
    # Inside torch.compile, is_exporting() is always true.
    exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
    return exporting or torch.jit.is_tracing()


@cache
def _log_once(name: str, device: str) -> None:
    logging.getLogger("llmdet").info("Deformable attention on %s runs through %s.", device, name)
