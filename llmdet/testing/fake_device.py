"""A GPU that need not exist: its tensors have shapes and no values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


def to_fake_device(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Put parameters and buffers on a CUDA device of ``mode``, in which alone they can be used."""
    with mode:
        for part in module.modules():
            for name, weight in part.named_parameters(recurse=False):
                part._parameters[name] = nn.Parameter(_fake(weight), weight.requires_grad)
            for name, value in part.named_buffers(recurse=False):
                part._buffers[name] = _fake(value)
    return module


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
