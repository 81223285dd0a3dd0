"""What a mask costs: GLaMM's cross-entropy of pixels and its dice loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

#: Sums of pixels are divided by it, which keeps them in half precision; with _EPSILON beside them
#: it is part of the loss's value.
_SCALE = 1000.0
_EPSILON = 1e-6


def mask_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over pixels of each mask's binary cross-entropy; both [N, h, w], the result [N]."""
    pixels = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    return pixels.flatten(1).mean(1)


def mask_dice(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - dice of each mask's probabilities; both [N, h, w], the result [N]."""
    probabilities = logits.sigmoid().flatten(1)
    wanted = targets.to(logits.dtype).flatten(1)
    both = (probabilities / _SCALE * wanted).sum(1)
    either = (probabilities / _SCALE).sum(1) + (wanted / _SCALE).sum(1)
    return 1 - (2 * both + _EPSILON) / (either + _EPSILON)
