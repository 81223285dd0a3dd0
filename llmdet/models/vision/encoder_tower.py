"""What towers around a published image encoder share: frozen or trained, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from llmdet.errors import ConfigError


class EncoderTower(nn.Module):
    """Base of towers whose encoder is frozen, or trains in float32.

    Args:
        frozen: whether it never trains.
        dtype: of the weights; default: bfloat16 where CUDA is available and it is frozen, else
            float32.

    Raises:
        ConfigError: it is to train in half precision.
    """

    encoder: Any

    def __init__(self, *, frozen: bool, dtype: str | None) -> None:
        super().__init__()
        halved = frozen and torch.cuda.is_available()
        self.dtype: torch.dtype = getattr(torch, dtype or ("bfloat16" if halved else "float32"))
        if not frozen and self.dtype != torch.float32:
            raise ConfigError(f"a tower with frozen=False trains in float32, not in {self.dtype}")
        self.frozen = frozen

    def train(self, mode: bool = True) -> EncoderTower:
        """A frozen encoder stays in eval mode."""
        return super().train(mode and not self.frozen)

    @contextmanager
    def reading(self, device: torch.device) -> Iterator[None]:
        """A ``with`` block in which the encoder runs.

        A frozen one makes no gradients, and keeps the weights' own precision whatever an outer
        autocast says.
        """
        if not self.frozen:
            yield
            return
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
