"""LoRA inside a detector: low-rank maps added to weights (arXiv 2106.09685, section 4.1).

peft adds them to what a linear map gives. A detector also reads weights without calling their map:
attention projects with parts of one, and fusion multiplies several before any pixel does. So they
are added to the weight itself, which costs less too, as pixels are many and weights small. Names
in checkpoints are those of peft.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.ops.linear import Linear
from llmdet.ops.precision import float32_island

#: Name of the only adapter, as peft calls one that was given none.
_ADAPTER = "default"


class Matrix(nn.Module):
    """A parameter by itself, since an ``init_weights`` would overwrite that of a linear map."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class LoRALinear(Linear):
    """A linear map whose weight is a frozen one plus a product of two thin matrices."""

    base_layer: Any

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """[out, in]."""
        return _sum(self, self.base_layer.weight)


class LoRAAttention(nn.MultiheadAttention):
    """Attention whose projection of queries, keys and values is such a sum."""

    base_layer: Any

    @property
    def in_proj_weight(self) -> Tensor:  # type: ignore[override]
        """[3 * C, C]."""
        return _sum(self, self.base_layer.in_proj_weight)


def add_low_rank(module: nn.Module, r: int, alpha: float) -> int:
    """Put low-rank maps beside all linear maps and attention projections in ``module``, in place.

    Args:
        module: computes what it did before, until the new maps have learned something.
        r: rank.
        alpha: the product weighs alpha / r.

    Returns:
        How many weights have one.
    """
    found = 0
    for part in list(module.modules()):
        if isinstance(part, (LoRALinear, LoRAAttention)):
            continue
        if isinstance(part, nn.MultiheadAttention):
            _adapt(part, "in_proj_weight", r, alpha, LoRAAttention)
        elif isinstance(part, nn.Linear):
            _adapt(part, "weight", r, alpha, LoRALinear)
        else:
            continue
        found += 1
    return found


def is_low_rank(name: str) -> bool:
    """Whether a parameter of this name is one of the thin matrices."""
    return ".lora_A." in name or ".lora_B." in name


def _adapt(part: Any, name: str, r: int, alpha: float, kind: type[nn.Module]) -> None:
    weight = getattr(part, name)
    del part._parameters[name]
    base = nn.Module()
    base.register_parameter(name, weight)
    down = torch.empty(r, weight.shape[1])
    nn.init.kaiming_uniform_(down, a=math.sqrt(5))  # as peft
    part.base_layer = base
    part.lora_A = nn.ModuleDict({_ADAPTER: Matrix(down)})
    part.lora_B = nn.ModuleDict({_ADAPTER: Matrix(torch.zeros(weight.shape[0], r))})
    part.lora_scale = alpha / r
    part.__class__ = kind


def _sum(part: Any, base: Tensor) -> Tensor:
    up, down = part.lora_B[_ADAPTER].weight, part.lora_A[_ADAPTER].weight
    return _added(base, up, down, scale=part.lora_scale)


@float32_island
def _added(base: Tensor, up: Tensor, down: Tensor, *, scale: float) -> Tensor:
    return torch.addmm(base, up, down, alpha=scale)
