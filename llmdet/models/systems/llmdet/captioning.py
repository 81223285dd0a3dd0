"""Captions out: the language model describes images and boxes that a trained LLMDet sees."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from llmdet.errors import ConfigError
from llmdet.models.regions.base import RegionBatch, batch_regions
from llmdet.models.structures import PromptedFeatures
from llmdet.models.vision.detector_memory import DetectorOutput, detector_output
from llmdet.models.vision.views import Frame

from .captioner import Captioner


def requested_captioners(
    requested: Collection[str], image: Captioner | None, region: Captioner | None
) -> dict[str, Captioner]:
    """The captioner of each requested kind, "image" or "regions".

    Raises:
        ConfigError: there is no such kind, or the model was not built to give it.
    """
    known = {"image": image, "regions": region}
    unknown = set(requested) - set(known)
    if unknown:
        raise ConfigError(f"captions={sorted(unknown)} are unknown; 'image' and 'regions' are")
    found = {}
    for kind in sorted(requested):
        captioner = known[kind]
        if captioner is None:
            raise ConfigError(
                f"captions='{kind}' needs a model with lmm and "
                f"{'image' if kind == 'image' else 'region'}_captioner; this config has none"
            )
        found[kind] = captioner
    return found


def inference_view(features: PromptedFeatures, frame: Frame) -> DetectorOutput:
    """What captioners see of a detection: the memory, and the queries of the last layer."""
    queries, boxes = features.decoded.hidden_states[-1], features.predictions.boxes[-1]
    scores = features.predictions.logits[-1].amax(-1)
    return detector_output(features.encoded, frame, queries, boxes, scores)


def boxes_to_describe(
    frame: Frame,
    samples: Sequence[DetDataSample],
    given: Sequence[Tensor] | None,
    rescaled: bool,
) -> RegionBatch:
    """The given boxes, or else the detected ones, as regions of the original images.

    Args:
        frame: where the images lie in the input.
        samples: with ``pred_instances``.
        given: per image [N, 4] xyxy in pixels of the original image, or None.
        rescaled: the detected boxes are in pixels of the original image, not of the input.
    """
    device = frame.scale.device
    boxes = given if given is not None else [sample.pred_instances.bboxes for sample in samples]
    flat = torch.cat([part.to(device).float().reshape(-1, 4) for part in boxes])
    regions = batch_regions([len(part) for part in boxes], device, boxes=flat)
    if given is not None or rescaled:
        return regions
    original = frame.original_boxes(flat, regions.image)
    return batch_regions(regions.counts, device, boxes=original)
