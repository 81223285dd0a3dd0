"""An eye that sees every image once: what a frozen detector makes of it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.models.vision.detector_memory import DetectorOutput
from llmdet.models.vision.views import View
from llmdet.registry import MODELS


@MODELS.register_module()
class KeptQueries(nn.Module):
    """The object queries of a frozen ``DetectorMemory``, in memory from the second look on.

    Images are known by their pixels. Its output has no maps: encoders of regions must read queries.

    Args:
        tower: settings of the ``DetectorMemory``.
    """

    def __init__(self, tower: Mapping[str, Any]) -> None:
        super().__init__()
        self.tower: Any = MODELS.build(tower)
        self.dims, self.view = self.tower.dims, self.tower.view
        self._kept: dict[bytes, tuple[Tensor, ...]] = {}

    def forward(self, view: View) -> DetectorOutput:
        """Queries [B, Q, C], their boxes and scores."""
        keys = [self._key(view, number) for number in range(len(view.pixels))]
        new = [number for number, key in enumerate(keys) if key not in self._kept]
        if new:
            seen = self.tower(_part(view, new))
            found = seen.queries, seen.query_boxes, seen.query_scores
            for place, number in enumerate(new):
                self._kept[keys[number]] = tuple(each[place].detach().clone() for each in found)
        queries, boxes, scores = (
            torch.stack(each) for each in zip(*(self._kept[key] for key in keys), strict=True)
        )
        nothing = queries.new_zeros(len(keys), 0, self.dims)
        ratios = queries.new_zeros(len(keys), 0, 2)
        encoded: Any = None  # nothing here reads it
        return DetectorOutput(nothing, (), ratios, view.frame, encoded, queries, boxes, scores)

    @staticmethod
    def _key(view: View, number: int) -> bytes:
        """Of the image's own pixels, whatever padding its batch gives it."""
        height, width = view.frame.valid_sizes[number]
        pixels = view.pixels[number, :, :height, :width].cpu().contiguous()
        return hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).digest()


def _part(view: View, images: Sequence[int]) -> View:
    """Some images of a view."""
    frame, chosen = view.frame, list(images)
    part = replace(
        frame,
        scale=frame.scale[chosen],
        offset=frame.offset[chosen],
        valid_sizes=tuple(frame.valid_sizes[number] for number in chosen),
        original_sizes=tuple(frame.original_sizes[number] for number in chosen),
        corner=None if frame.corner is None else frame.corner[chosen],
    )
    return View(view.pixels[chosen], part)
