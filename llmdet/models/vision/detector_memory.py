"""A detector as a tower: its encoder memory, and its object queries where the decoder has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.datasets.views import ViewSettings
from llmdet.models.structures import EncoderOutput
from llmdet.prompts.types import TokenizedPrompt
from llmdet.registry import MODELS

from .views import Frame, TowerOutput, View


@dataclass(frozen=True)
class DetectorOutput(TowerOutput):
    """Memory of B images and, where the decoder has run, the Q object queries of one layer."""

    encoded: EncoderOutput
    queries: Tensor | None = None  # [B, Q, C]
    query_boxes: Tensor | None = None  # [B, Q, 4] cxcywh in 0..1 of the valid image
    query_scores: Tensor | None = None  # [B, Q] logit of the best token of the prompt


@MODELS.register_module()
class DetectorMemory(nn.Module):
    """Reads views with a detector's backbone, neck and encoder; no decoder runs.

    Args:
        detector: a text-prompted detector, built or to be built.
        size: most pixels of a view's shorter and longer side.
        frozen: the detector does not train.
    """

    def __init__(
        self,
        detector: nn.Module | Mapping[str, Any],
        size: tuple[int, int] = (800, 1333),
        frozen: bool = False,
    ) -> None:
        super().__init__()
        built: Any = MODELS.build(detector) if isinstance(detector, Mapping) else detector
        self.detector, self.dims = built, int(built.encoder.embed_dims)
        self.size, self.frozen = (size[0], size[1]), frozen
        if frozen:
            self.requires_grad_(False).eval()

    @property
    def view(self) -> ViewSettings:
        """What the detector was trained to see."""
        colours = self.detector.data_preprocessor
        mean, std = (tuple(part.flatten().tolist()) for part in (colours.mean, colours.std))
        return ViewSettings(self.size, "inside", mean=mean, std=std, interpolation="bilinear")

    def train(self, mode: bool = True) -> DetectorMemory:
        """A frozen detector stays in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(
        self, view: View, prompts: Sequence[TokenizedPrompt | str] | None = None
    ) -> DetectorOutput:
        """Memory of the view; ``prompts`` are the B texts that the encoder fuses with it, or ""."""
        frame = view.frame
        texts = [""] * len(view.pixels) if prompts is None else prompts
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            encoded = self.detector.read_memory(view.pixels, frame.valid_sizes, texts)
        return detector_output(encoded, frame)


def detector_output(
    encoded: EncoderOutput,
    frame: Frame,
    queries: Tensor | None = None,
    query_boxes: Tensor | None = None,
    query_scores: Tensor | None = None,
) -> DetectorOutput:
    """What region encoders see of a detector; arguments as in :class:`DetectorOutput`."""
    pyramid = encoded.pyramid
    levels = encoded.memory.split([height * width for height, width in pyramid.shapes], 1)
    maps = tuple(
        level.unflatten(1, shape).permute(0, 3, 1, 2)
        for level, shape in zip(levels, pyramid.shapes, strict=True)
    )
    of_queries = queries, query_boxes, query_scores
    return DetectorOutput(encoded.memory, maps, pyramid.valid_ratios, frame, encoded, *of_queries)
