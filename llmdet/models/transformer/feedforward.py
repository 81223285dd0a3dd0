"""Feed-forward parts of the transformer."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Tokens whose hidden units a processor computes at a time: 16 MB at a width of 2048, which the
#: next block uses again. Those of all pixels would be fresh memory for every layer.
ROWS_ON_CPU = 2048


class FFN(nn.Module):
    """Two linear maps with a ReLU between them, added to the input.

    Args:
        embed_dims: width C of the input.
        feedforward_channels: width between the two maps.
        ffn_drop: dropout after each map.
    """

    def __init__(
        self, embed_dims: int = 256, feedforward_channels: int = 1024, ffn_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.hidden_dims = feedforward_channels
        # The nesting gives the parameters the names of released checkpoints.
        self.layers = nn.Sequential(
            nn.Sequential(
                nn.Linear(embed_dims, feedforward_channels),
                nn.ReLU(inplace=True),  # the widest tensor of an encoder is not held twice
                nn.Dropout(ffn_drop),
            ),
            nn.Linear(feedforward_channels, embed_dims),
            nn.Dropout(ffn_drop),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x + FFN(x), [..., C] to [..., C]."""
        whole = torch.is_grad_enabled() or torch.compiler.is_exporting()
        if whole or x.device.type != "cpu":
            return x + self.layers(x)
        blocks = x.flatten(0, -2).split(ROWS_ON_CPU)
        return torch.cat([block + self.layers(block) for block in blocks]).view_as(x)


class MLP(nn.Module):
    """Linear maps with a ReLU between them; parameters are named ``layers.N``."""

    def __init__(self, in_dims: int, hidden_dims: int, out_dims: int, num_layers: int) -> None:
        super().__init__()
        dims = [in_dims, *[hidden_dims] * (num_layers - 1), out_dims]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_dims] to [..., out_dims]."""
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return last(x)
