"""Backbones of mmdet that need a change to run on current torch."""

from __future__ import annotations

from typing import Any

from mmdet.models.backbones import SwinTransformer as MMDetSwin
from mmdet.models.backbones.swin import SwinBlock
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llmdet.registry import MODELS


@MODELS.register_module()
class SwinTransformer(MMDetSwin):
    """mmdet's Swin; ``with_cp`` recomputes activations in the way that torch now asks for.

    Reentrant checkpoints, which mmdet's blocks use, are deprecated, and lose the gradients of a
    block whose input needs none.

    Args:
        with_cp: recompute the activations of every block in the backward pass.
        settings: those of :class:`mmdet.models.SwinTransformer`.
    """

    def __init__(self, *, with_cp: bool = False, **settings: Any) -> None:
        super().__init__(with_cp=False, **settings)
        if with_cp:
            for module in self.modules():
                if isinstance(module, SwinBlock):
                    module.forward = _Recomputed(module.forward)


class _Recomputed:
    """A forward method whose activations are not kept."""

    def __init__(self, forward: Any) -> None:
        self.forward = forward

    def __call__(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        return checkpoint(self.forward, x, hw_shape, use_reentrant=False)
