"""Two towers that see one view: one that knows what, one that knows where (ChatRex, 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmdet.datasets.views import ViewSettings
from llmdet.errors import ConfigError
from llmdet.registry import MODELS

from .views import Frame, Tower, TowerOutput, View


@MODELS.register_module()
class DualTower(nn.Module):
    """A tower of coarse views beside one of fine views, both of which see the fine one's.

    The coarse tower gets the fine view's pixels, resampled. Maps are those of the fine tower, and
    behind them one of both: the channels of the coarse tower's last map, then those of the fine
    tower's. Tokens are its pixels, and boxes lie in the fine view for all maps.

    Args:
        coarse: a tower of square views, as CLIP at 336 pixels.
        fine: a tower of square views, as ConvNeXt at 768 pixels.

    Raises:
        ConfigError: a view is not square and padded, or the fine one is the smaller one.
    """

    def __init__(self, coarse: Mapping[str, Any], fine: Mapping[str, Any]) -> None:
        super().__init__()
        self.coarse: Tower = MODELS.build(coarse)
        self.fine: Tower = MODELS.build(fine)
        sides = self.coarse.view.size, self.fine.view.size
        if any(height != width for height, width in sides) or sides[0] > sides[1]:
            raise ConfigError(
                f"DualTower: views of {sides[0]} (coarse) and {sides[1]} (fine) pixels; both are "
                "squares, and the fine one is no smaller"
            )
        # Both see one view, and what fits "inside" is no square that shrinks to a square.
        for name, tower in {"coarse": self.coarse, "fine": self.fine}.items():
            if tower.view.fit != "pad":
                raise ConfigError(
                    f"DualTower: the view of {name} has fit={tower.view.fit!r}; leave it out, or "
                    "set it to 'pad'"
                )
        self.dims = self.coarse.dims + self.fine.dims
        fine_dims = getattr(self.fine, "map_dims", (self.fine.dims,))
        #: Width of each map.
        self.map_dims = (*fine_dims, self.dims)

    @property
    def view(self) -> ViewSettings:
        """What the fine tower wants to see."""
        return self.fine.view

    def forward(self, view: View) -> TowerOutput:
        """Maps of the fine tower, and the one of both."""
        fine, coarse = self.fine(view), self.coarse(self._coarse_view(view))
        known, details = coarse.maps[-1], fine.maps[-1]
        if details.shape[-2:] != known.shape[-2:]:
            size = known.shape[-2:]
            details = F.interpolate(details.float(), size, mode="bilinear").to(details.dtype)
        both = torch.cat([known.to(details.dtype), details], 1)
        return TowerOutput(
            tokens=both.flatten(2).transpose(1, 2),
            maps=(*fine.maps, both),
            valid_ratios=torch.cat([fine.valid_ratios, coarse.valid_ratios[:, -1:]], 1),
            frame=fine.frame,
        )

    def _coarse_view(self, view: View) -> View:
        """The same view, smaller, in the colours of the coarse tower."""
        size = self.coarse.view.size
        pixels = F.interpolate(view.pixels, size, mode="bilinear")
        return View(self._recoloured(pixels), _smaller(view.frame, size))

    def _recoloured(self, pixels: Tensor) -> Tensor:
        """Pixels of the fine view's normalisation in the coarse one's."""
        ours, theirs = self.fine.view, self.coarse.view
        if (ours.mean, ours.std) == (theirs.mean, theirs.std):
            return pixels
        mean, std, wanted_mean, wanted_std = (
            pixels.new_tensor(each)[:, None, None]
            for each in (ours.mean, ours.std, theirs.mean, theirs.std)
        )
        return (pixels * std + mean - wanted_mean) / wanted_std


def _smaller(frame: Frame, size: tuple[int, int]) -> Frame:
    """The frame of a view of ``size`` that was made of a larger one."""
    factor = size[1] / frame.size[1]
    valid = tuple(
        (round(height * factor), round(width * factor)) for height, width in frame.valid_sizes
    )
    return replace(
        frame,
        scale=frame.scale * factor,
        offset=frame.offset * factor,
        valid_sizes=valid,
        size=size,
        corner=None if frame.corner is None else frame.corner * factor,
    )
