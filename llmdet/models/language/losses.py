"""Cross-entropy of next tokens with vocabulary logits at supervised positions only."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

logger = logging.getLogger(__name__)


def supervised_cross_entropy(hidden: Tensor, index: Tensor, targets: Tensor, head: Any) -> Tensor:
    """Mean cross-entropy of the targets, given hidden states at all positions.

    Logits at every position of a caption batch would be [2, 1200, 152k]: most of them belong
    to visual and prompt tokens that nothing is asked of.

    Args:
        hidden: [R, T, H] after the last norm.
        index: [n] int64 into the R * T positions: those whose next token is supervised.
        targets: [n] int64, these next tokens.
        head: maps H to the vocabulary; a plain ``nn.Linear`` is fused with the loss on CUDA.

    Returns:
        Scalar float32.
    """
    rows = hidden.flatten(0, 1)[index].to(head.weight.dtype)  # [n, H]
    fused = None
    # A head that is spread over processes gathers its weight when it is called, not before.
    if rows.is_cuda and isinstance(head, nn.Linear) and type(head.weight) is nn.Parameter:
        fused = _fused_function()
    if fused is not None:
        return fused(rows, head.weight, targets, head.bias).float()
    return F.cross_entropy(head(rows).float(), targets)


def zero_loss(parameters: Iterable[nn.Parameter]) -> Tensor:
    """A zero that depends on every given parameter, so that each of them gets a gradient.

    Distributed training waits for the gradients of all trainable parameters in every step,
    also in steps whose batch asks nothing of some of them.
    """
    sums = [parameter.sum() for parameter in parameters if parameter.requires_grad]
    if not sums:
        return torch.zeros(())
    return torch.stack([value.float() for value in sums]).sum() * 0


@cache
def _fused_function() -> Any:
    """liger-kernel's linear map and cross-entropy in one, or None where it is not installed."""
    try:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy
    except ImportError:
        logger.info("caption loss: PyTorch (liger-kernel is not installed)")
        return None
    logger.info("caption loss: liger-kernel's fused linear cross-entropy")
    return liger_fused_linear_cross_entropy
