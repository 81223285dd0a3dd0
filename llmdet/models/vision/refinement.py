"""Finer maps than a tower's own, for regions smaller than its cells (RegionGPT, 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from llmdet.datasets.views import ViewSettings
from llmdet.errors import ConfigError
from llmdet.registry import MODELS

from .views import Tower, TowerOutput, View

KINDS = ("deconv", "bilinear", "deconv+bilinear", "none")
#: How much larger bilinear resampling makes a map along a side: in all 16 times, the pixels of
#: an image of patches of 16.
_BILINEAR = {"bilinear": 16, "deconv+bilinear": 4}


class FeatureRefinement(nn.Module):
    """Makes a map larger; its channels stay as many.

    Args:
        dims: channels C.
        kind: "deconv": two learned transposed convolutions, 4 times as large along a side;
            "bilinear": 16 times, nothing learned; "deconv+bilinear": one after the other; "none".
        scale: of the bilinear part, where another one is wanted.
    """

    def __init__(self, dims: int, kind: str = "deconv", scale: int | None = None) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ConfigError(f"refinement={kind!r} is unknown; known: {', '.join(KINDS)}")
        if scale is not None and kind not in _BILINEAR:
            raise ConfigError(f"refinement={kind!r} has no bilinear part that takes a scale")
        self.scale = scale or _BILINEAR.get(kind, 1)
        self.layers = nn.Sequential()
        if kind.startswith("deconv"):
            self.layers = nn.Sequential(
                nn.ConvTranspose2d(dims, dims, 2, stride=2),
                ChannelNorm(dims),
                nn.GELU(),
                nn.ConvTranspose2d(dims, dims, 2, stride=2),
                nn.GELU(),
            )

    def forward(self, feat: Tensor) -> Tensor:
        """[B, C, h, w] to the same, larger."""
        finer = self.layers(feat)
        if self.scale > 1:
            finer = F.interpolate(finer, scale_factor=self.scale, mode="bilinear")
        return finer


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map [B, C, h, w]."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims, eps=1e-6)

    def forward(self, feat: Tensor) -> Tensor:
        """Normalise each pixel."""
        return super().forward(feat.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@MODELS.register_module()
class RefinedTower(nn.Module):
    """A tower whose last map is made larger.

    Args:
        tower: of the registry.
        refinement: kind of :class:`FeatureRefinement`, which trains whether or not the tower does.
        scale: of its bilinear part, where another one is wanted.
    """

    def __init__(
        self, tower: Mapping[str, Any], refinement: str = "deconv", scale: int | None = None
    ) -> None:
        super().__init__()
        self.tower: Tower = MODELS.build(tower)
        self.dims = self.tower.dims
        self.refinement = FeatureRefinement(self.dims, refinement, scale)

    @property
    def view(self) -> ViewSettings:
        """What the tower wants to see."""
        return self.tower.view

    def forward(self, view: View) -> TowerOutput:
        """The tower's tokens, and one map that is larger than its last one."""
        seen = self.tower(view)
        finer = self.refinement(seen.maps[-1].to(self._dtype(seen.maps[-1])))
        return replace(seen, maps=(finer,), valid_ratios=seen.valid_ratios[:, -1:])

    def _dtype(self, like: Tensor) -> Any:
        """Of the refinement's weights; an autocast around it decides otherwise."""
        weights = next(self.refinement.parameters(), like)
        return weights.dtype
