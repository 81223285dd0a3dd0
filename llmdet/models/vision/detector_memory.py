"""A detector as a tower: its encoder memory, and its object queries where the decoder has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.checkpoint.files import read_checkpoint
from llmdet.datasets.views import ViewSettings
from llmdet.errors import CheckpointError
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
    """Reads views with a detector's backbone, neck and encoder, and its decoder where asked to.

    Args:
        detector: a text-prompted detector, built or to be built.
        size: most pixels of a view's shorter and longer side.
        frozen: the detector does not train.
        weights: checkpoint of a training of the detector, ours or the original's, whose language
            model is left out; None for weights as built.
        prompt: the text that the encoder fuses with every image, for instance the class names of
            its training; a detector that only ever read texts sees little without one.
        queries: run the decoder too, for encoders of regions that read object queries.

    Raises:
        CheckpointError: the weights cannot be read, or lack a tensor of the detector.
    """

    def __init__(
        self,
        detector: nn.Module | Mapping[str, Any],
        size: tuple[int, int] = (800, 1333),
        frozen: bool = False,
        weights: str | None = None,
        prompt: str = "",
        queries: bool = False,
    ) -> None:
        super().__init__()
        built: Any = MODELS.build(detector) if isinstance(detector, Mapping) else detector
        self.detector, self.dims = built, int(built.encoder.embed_dims)
        self.size, self.frozen = (size[0], size[1]), frozen
        self.prompt, self.queries = prompt, queries
        if weights is not None:
            self._start_from(weights)
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
        """Memory of the view, with the object queries where the decoder runs.

        Args:
            view: of B images.
            prompts: their B texts; None for the tower's own.
        """
        frame, detector = view.frame, self.detector
        texts = [self.prompt] * len(view.pixels) if prompts is None else prompts
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            encoded = detector.read_memory(view.pixels, frame.valid_sizes, texts)
            if not self.queries:
                return detector_output(encoded, frame)
            decoded = detector.decode(encoded, detector.propose(encoded))
            found = detector.bbox_head(decoded, encoded.text)
        scores = found.logits[-1].amax(-1)
        return detector_output(encoded, frame, decoded.hidden_states[-1], found.boxes[-1], scores)

    def _start_from(self, source: str) -> None:
        read = read_checkpoint(source).state_dict
        here = self.detector.state_dict()
        misfits = [
            name
            for name, value in here.items()
            if name not in read or read[name].shape != value.shape
        ]
        if misfits:
            raise CheckpointError(
                f"the detector of '{source}' does not fit: {len(misfits)} of {len(here)} tensors "
                f"are missing or of another shape, the first is {misfits[0]}; take the settings "
                "of the detector from the config that it was trained with"
            )
        self.detector.load_state_dict({name: read[name] for name in here})


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
