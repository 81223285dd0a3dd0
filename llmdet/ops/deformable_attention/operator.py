"""Deformable attention as operators of torch, so that ``torch.compile`` takes each as one step.

The implementations run behind these operators; Triton's is loaded when it is first called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmdet.ops.deformable_attention.lookup import sample_with_embedding_bag


@torch.library.custom_op("llmdet::deformable_attention", mutates_args=())
def sample(
    value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor, implementation: str
) -> Tensor:
    """Sample and sum.

    Args:
        value: [B, S, heads, C / heads] float32, bfloat16 or float16.
        sizes: height and width of each level, one after the other.
        locations: [B, Q, heads, levels, P, 2] float32.
        weights: [B, Q, heads, levels, P] float32.
        implementation: "triton", or "embedding_bag", which has no gradients.

    Returns:
        [B, Q, C] of ``value``'s dtype.
    """
    if implementation == "embedding_bag":
        shapes = list(zip(sizes[::2], sizes[1::2], strict=True))
        return sample_with_embedding_bag(value, shapes, locations, weights)
    from llmdet.ops.deformable_attention import triton_kernels

    return triton_kernels.forward(
        value.contiguous(), sizes, locations.contiguous(), weights.contiguous()
    )


@sample.register_fake
def _(
    value: Tensor, sizes: Sequence[int], locations: Tensor, weights: Tensor, implementation: str
) -> Tensor:
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


@torch.library.custom_op("llmdet::deformable_attention_backward", mutates_args=())
def sample_backward(
    value: Tensor,
    sizes: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    grad_out: Tensor,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of :func:`sample` with respect to value, locations and weights (Triton)."""
    from llmdet.ops.deformable_attention import triton_kernels

    value, locations, weights, grad_out = (
        tensor.contiguous() for tensor in (value, locations, weights, grad_out)
    )
    return triton_kernels.backward(value, sizes, locations, weights, grad_out, deterministic)


@sample_backward.register_fake
def _(
    value: Tensor,
    sizes: Sequence[int],
    locations: Tensor,
    weights: Tensor,
    grad_out: Tensor,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor in (value, locations, weights)
    )  # type: ignore[return-value]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    value, sizes, locations, weights, _ = inputs
    ctx.save_for_backward(value, locations, weights)
    ctx.sizes = sizes


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
    value, locations, weights = ctx.saved_tensors
    grad_value, grad_locations, grad_weights = sample_backward(
        value,
        ctx.sizes,
        locations,
        weights,
        grad_out,
        torch.are_deterministic_algorithms_enabled(),
    )
    return grad_value, None, grad_locations, grad_weights, None


sample.register_autograd(_backward, setup_context=_save)
