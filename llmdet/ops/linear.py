"""Linear maps that run at the processor's speed in float32.

torch's ``linear`` on a CPU takes MKL for float32, which on processors of AMD reaches less than
half of what oneDNN does; torch has oneDNN with it and takes it for bfloat16 anyway.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.wrappers import Linear as MMCVLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Multiplications of a map below which calling oneDNN three times with gradients costs more than
#: it saves.
_MULTIPLICATIONS = 2**22


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def onednn_linear_works() -> bool:
    """Whether this torch has oneDNN's linear map, and it computes one.

    The operator is an internal one: another release may call it otherwise or drop it, and then
    everything runs by the plain formula.
    """
    x, weight, bias = torch.eye(2, 3), torch.arange(12.0).view(4, 3), torch.ones(4)
    try:
        found = [_onednn_linear(x, weight, bias), _onednn_linear(x, weight, None)]
    except (AttributeError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
    else:
        if all(map(torch.equal, found, [F.linear(x, weight, bias), F.linear(x, weight)])):
            return True
        reason = "it gives other numbers"
    logging.getLogger("llmdet").info("Linear maps do not run through oneDNN: %s.", reason)
    return False


_HAS_ONEDNN_LINEAR = onednn_linear_works()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x`` [..., in] times ``weight`` [out, in], plus ``bias`` [out]: [..., out].

    As :func:`torch.nn.functional.linear`, through oneDNN where that is the faster one.
    """
    if not _runs_onednn(x, weight):
        return F.linear(x, weight, bias)
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in tensors):
        return _onednn_linear(x, weight, bias)
    if x.numel() * len(weight) < _MULTIPLICATIONS:
        return F.linear(x, weight, bias)
    rows = _OneDNNLinear.apply(x.reshape(-1, x.shape[-1]), weight, bias)
    return rows.view(*x.shape[:-1], -1)


def batched_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One map for each item: ``x`` [B, N, in], ``weight`` [B, out, in], ``bias`` [B, out].

    Returns:
        [B, N, out].
    """
    if _runs_onednn(x, weight):  # which knows no batches of maps
        biases = [None] * len(x) if bias is None else bias.unbind()
        if len(x) == 1:
            return linear(x[0], weight[0], biases[0])[None]
        if torch.is_grad_enabled():
            return torch.stack([linear(*item) for item in zip(x, weight, biases, strict=True)])
        out = x.new_empty(*x.shape[:2], weight.shape[1])  # items and their stack would be twice it
        for row, item in enumerate(zip(x, weight, biases, strict=True)):
            out[row] = linear(*item)
        return out
    if bias is None:
        return x @ weight.transpose(1, 2)
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


class Linear(nn.Linear):
    """A linear map through :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def use_fast_linear(module: nn.Module) -> None:
    """Make every plain linear map in ``module`` a :class:`Linear`; parameters stay as they are."""
    for part in module.modules():
        # mmcv's, which mmdet's backbones are made of, differs for empty inputs of old torch alone.
        if type(part) in (nn.Linear, MMCVLinear):
            part.__class__ = Linear


class _OneDNNLinear(torch.autograd.Function):
    """The map of rows [N, in], and the gradients of rows and weight, each one product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # What no gradient asks for is not kept: a frozen weight needs no input, and vice versa.
        needs_x, needs_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)
        return _onednn_linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        gradient = gradient.contiguous()
        return (
            _onednn_linear(gradient, weight.t(), None) if needs_x else None,
            _onednn_linear(gradient.t(), x.t(), None) if needs_weight else None,
            gradient.sum(0) if needs_bias else None,
        )


def _runs_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        _HAS_ONEDNN_LINEAR
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and torch._C._get_mkldnn_enabled()  # what torch.backends.mkldnn.flags() sets
    )
