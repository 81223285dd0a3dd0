"""Captions out: the language model describes images and boxes that a trained LLMDet sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from llmdet.errors import ConfigError
from llmdet.models.detectors.inference import prompts_of
from llmdet.models.lmm.view import DetectorView, inference_view

if TYPE_CHECKING:
    from llmdet.models.detectors.llmdet import LLMDet

#: Enough for a long paragraph; the released models learned captions of about 150 words.
_IMAGE_TOKENS, _REGION_TOKENS = 400, 32
_KINDS = {"image", "regions"}


def describe_batch(
    model: LLMDet,
    images: Tensor,
    samples: Sequence[DetDataSample],
    kinds: set[str],
    boxes: Sequence[Tensor] | None,
    rescale: bool,
    generation: Mapping[str, Any],
) -> None:
    """Write captions into ``samples``; arguments as in :meth:`LLMDet.predict`.

    The features are those that the first prompt of each image gives rise to.
    """
    _check(model, kinds)
    view = look(model, images, samples)
    options = {"do_sample": False, **generation}
    if "image" in kinds and model.image_captioner is not None:
        lengths = {"max_new_tokens": _IMAGE_TOKENS, **options}
        texts = model.image_captioner.describe(model.lmm, view, **lengths)
        for sample, text in zip(samples, texts, strict=True):
            sample.image_description = text
    if "regions" in kinds and model.region_captioner is not None:
        given = boxes is not None
        asked = boxes if boxes is not None else [s.pred_instances.bboxes for s in samples]
        corners = [
            _normalised(own.to(images.device), sample, rescale or given)
            for own, sample in zip(asked, samples, strict=True)
        ]
        lengths = {"max_new_tokens": _REGION_TOKENS, **options}
        phrases = model.region_captioner.describe(model.lmm, view, corners, **lengths)
        for sample, own in zip(samples, phrases, strict=True):
            if given:
                sample.region_descriptions = own
            else:
                sample.pred_instances.captions = own


def _check(model: LLMDet, kinds: set[str]) -> None:
    unknown = kinds - _KINDS
    if unknown:
        raise ConfigError(f"captions={sorted(unknown)} are unknown; 'image' and 'regions' are")
    makers = {"image": model.image_captioner, "regions": model.region_captioner}
    for kind in sorted(kinds):
        if makers[kind] is None:
            raise ConfigError(
                f"captions='{kind}' needs a model with lmm and "
                f"{'image' if kind == 'image' else 'region'}_captioner; this config has none"
            )


def look(model: LLMDet, images: Tensor, samples: Sequence[DetDataSample]) -> DetectorView:
    """Run the detector on the first prompt of each sample and keep its features."""
    prompts = [prompts_of(s, model.language_model, model.test_cfg)[0] for s in samples]
    maps = model.extract_maps(images, samples)
    seen = model.forward_prompts(maps, prompts)
    return inference_view(seen.encoded, seen.decoded, seen.predictions)


def _normalised(boxes: Tensor, sample: DetDataSample, original: bool) -> Tensor:
    """Boxes [N, 4] xyxy in 0..1 of the image, from pixels of the original image or the input."""
    height, width = sample.ori_shape[:2] if original else sample.img_shape[:2]
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    return (boxes.float() / scale.to(boxes.device, non_blocking=True)).clamp(0, 1)
