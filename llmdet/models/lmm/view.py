"""What captioners see of a detector, while it trains and while it is asked."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from llmdet.models.quirks import Quirks
from llmdet.models.structures import DecoderOutput, EncoderOutput, HeadOutput, TrainingOutput
from llmdet.models.transformer.boxes import cxcywh_to_xyxy


@dataclass(frozen=True)
class DetectorView:
    """Features of B images and of the Q object queries of each; no denoising queries."""

    encoded: EncoderOutput
    hidden_states: Tensor  # [D, B, Q, C]
    boxes: Tensor  # [D, B, Q, 4] cxcywh in 0..1 of the valid image

    @property
    def corners(self) -> Tensor:
        """The last layer's boxes [B, Q, 4] as xyxy."""
        return cxcywh_to_xyxy(self.boxes[-1])


def training_view(output: TrainingOutput, quirks: Quirks) -> DetectorView:
    """What captioners see in a training step.

    Boxes come without gradient: phrases teach what queries hold, not where boxes are.
    """
    noisy = 0 if output.denoising is None else output.denoising.content.shape[1]
    hidden, boxes = output.decoded.hidden_states, output.predictions.boxes.detach()
    if quirks.region_queries_ignore_denoising:
        queries = hidden.shape[2] - noisy
        return DetectorView(output.encoded, hidden[:, :, :queries], boxes[:, :, noisy:])
    return DetectorView(output.encoded, hidden[:, :, noisy:], boxes[:, :, noisy:])


def inference_view(
    encoded: EncoderOutput, decoded: DecoderOutput, predictions: HeadOutput
) -> DetectorView:
    """What captioners see of a detection."""
    return DetectorView(encoded, decoded.hidden_states, predictions.boxes)


def scaled_references(boxes: Tensor, valid_ratios: Tensor) -> Tensor:
    """Boxes as deformable attention wants them.

    Args:
        boxes: [R, V, 4] cxcywh in 0..1 of the valid image.
        valid_ratios: [R, levels, 2] (width, height), of the image of each row.

    Returns:
        [R, V, levels, 4] cxcywh in 0..1 of the padded maps.
    """
    return boxes[:, :, None] * valid_ratios.repeat(1, 1, 2)[:, None]
