"""Classification by similarity with text tokens (Grounding DINO, arXiv 2303.05499, section 3.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from llmdet.errors import ConfigError
from llmdet.models.structures import TextFeatures

#: A new detector should find everything unlikely: sigmoid(-log 99) = 0.01.
PRIOR_BIAS = -math.log(99)


class ContrastiveEmbed(nn.Module):
    """Logits of image features against text tokens.

    Args:
        max_text_len: of mmdet's schema; the detector refuses one that is not the text encoder's
            ``max_tokens``, where this length stands.
        log_scale: "auto" divides by the square root of C, "none" or None does not scale, a
            number is the initial value of a learned exponent.
        bias: whether a bias is learned.
    """

    def __init__(
        self,
        max_text_len: int | None = None,
        log_scale: str | float | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.max_text_len = max_text_len
        self.divide = log_scale == "auto"
        if isinstance(log_scale, (int, float)):
            self.log_scale: nn.Parameter | None = nn.Parameter(torch.tensor([float(log_scale)]))
        elif log_scale in ("auto", "none", None):
            self.log_scale = None
        else:
            raise ConfigError(
                f"contrastive_cfg.log_scale={log_scale!r}; choose 'auto', 'none' or a number"
            )
        self.bias = nn.Parameter(torch.tensor([PRIOR_BIAS])) if bias else None

    def forward(self, visual: Tensor, text: TextFeatures) -> Tensor:
        """Compare ``visual`` [B, Q, C] with the text tokens.

        Returns:
            [B, Q, L], -inf at padded text.
        """
        logits = visual @ text.embedded.transpose(1, 2)
        if self.divide:
            logits = logits / math.sqrt(visual.shape[-1])
        if self.log_scale is not None:
            logits = logits * self.log_scale.exp()
        if self.bias is not None:
            logits = logits + self.bias
        return logits.masked_fill(~text.token_mask[:, None], float("-inf"))
