"""Detection with prompts of any number and length: chunks of all images run as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from llmdet.models.text.prompt import Prompt, build_prompts, token_map
from llmdet.models.text.referring import position_boost
from llmdet.models.transformer.pyramid import valid_level_sizes

if TYPE_CHECKING:
    from llmdet.models.detectors.grounding_dino import GroundingDINO

Size = tuple[int, int]
#: Value of ``tokens_positive`` that makes the whole text one referring expression.
REFERRING = -1


@dataclass(frozen=True)
class PaddedMaps:
    """Feature maps of a batch and how much of each is not padding."""

    feats: tuple[Tensor, ...]  # per level [B, C, H, W]
    valid_sizes: tuple[tuple[Size, ...], ...]  # per level and image (height, width)

    def of(self, images: Sequence[int]) -> PaddedMaps:
        """The maps of some images of the batch, in the given order, repeats allowed."""
        if list(images) == list(range(len(self.feats[0]))):
            return self
        index = torch.tensor(images).to(self.feats[0].device, non_blocking=True)
        sizes = tuple(tuple(level[i] for i in images) for level in self.valid_sizes)
        return PaddedMaps(tuple(feat[index] for feat in self.feats), sizes)


def detect_batch(
    model: GroundingDINO, images: Tensor, samples: Sequence[DetDataSample], rescale: bool
) -> list[InstanceData]:
    """Detect what every sample's text names.

    Args:
        model: the detector.
        images: [B, 3, H, W] normalised, padded right and below.
        samples: see :meth:`GroundingDINO.predict`.
        rescale: give boxes in pixels of the original image.

    Returns:
        Per image ``bboxes`` xyxy, ``scores``, ``labels``, ``bbox_index`` and ``label_names``,
        best first; how many, says ``model.test_cfg``.
    """
    prompts = [prompts_of(model, sample) for sample in samples]
    maps = extract_maps(model, images, [tuple(s.img_shape[:2]) for s in samples])
    jobs = [(image, prompt) for image, chunks in enumerate(prompts) for prompt in chunks]
    per_image: list[list[InstanceData]] = [[] for _ in samples]
    step = model.test_cfg.chunks_per_forward
    for start in range(0, len(jobs), step):
        some = jobs[start : start + step]
        found = _detect_jobs(model, maps, some, samples)
        for (image, _), instances in zip(some, found, strict=True):
            per_image[image].append(instances)
    return [
        _finish(model, found, chunks, sample, rescale)
        for found, chunks, sample in zip(per_image, prompts, samples, strict=True)
    ]


def prompts_of(model: GroundingDINO, sample: DetDataSample) -> list[Prompt]:
    """The prompts that a sample's text is cut into; see :meth:`GroundingDINO.predict`."""
    return build_prompts(
        sample.text,
        custom_entities=sample.get("custom_entities", False),
        tokens_positive=sample.get("tokens_positive"),
        enhanced=sample.get("caption_prompt"),
        tokenizer=model.language_model.tokenizer,
        max_tokens=model.language_model.max_tokens,
        max_classes=model.test_cfg.chunked_size,
        noun_phrases=model.test_cfg.noun_phrases,
        subject_only=model.test_cfg.referring.subject_only,
    )


def extract_maps(model: GroundingDINO, images: Tensor, sizes: Sequence[Size]) -> PaddedMaps:
    """Extract features such that no image's depend on another's size.

    Windows and group norms of backbone and neck see padding, so images of equal size run
    together without it and their maps are padded afterwards.

    Args:
        images: [B, 3, H, W], padded right and below.
        sizes: (height, width) of each image before padding.
    """
    padded = (images.shape[-2], images.shape[-1])
    if model.quirks.pad_before_backbone or all(size == padded for size in sizes):
        feats = model.extract_feat(images)
        shapes = [(feat.shape[-2], feat.shape[-1]) for feat in feats]
        valid = valid_level_sizes(sizes, padded, shapes)
        return PaddedMaps(feats, tuple(tuple(level) for level in valid))
    groups: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    by_image: list[tuple[Tensor, ...]] = [()] * len(sizes)
    for (height, width), members in groups.items():
        feats = model.extract_feat(images[members, :, :height, :width])
        for position, index in enumerate(members):
            by_image[index] = tuple(feat[position] for feat in feats)
    levels = list(zip(*by_image, strict=True))
    valid_sizes = tuple(tuple((m.shape[-2], m.shape[-1]) for m in level) for level in levels)
    return PaddedMaps(tuple(_stack_padded(level) for level in levels), valid_sizes)


def _stack_padded(maps: Sequence[Tensor]) -> Tensor:
    height, width = (max(m.shape[axis] for m in maps) for axis in (-2, -1))
    return torch.stack([F.pad(m, (0, width - m.shape[-1], 0, height - m.shape[-2])) for m in maps])


def _detect_jobs(
    model: GroundingDINO,
    maps: PaddedMaps,
    jobs: Sequence[tuple[int, Prompt]],
    samples: Sequence[DetDataSample],
) -> list[InstanceData]:
    chosen = maps.of([image for image, _ in jobs])
    prompts = [prompt for _, prompt in jobs]
    text = model.encode_text([prompt.text for prompt in prompts])
    encoded = model.encode(model.pyramid(chosen.feats, chosen.valid_sizes), text)
    decoded = model.decode(encoded, model.propose(encoded))
    output = model.bbox_head(decoded, encoded.text)
    maps_of_tokens = token_map(
        prompts, model.language_model.tokenizer, model.language_model.max_tokens
    ).to(output.logits.device, non_blocking=True)
    results = []
    for row, (image, prompt) in enumerate(jobs):
        logits = output.logits[-1, row]
        classes: Tensor | None = maps_of_tokens[row, : len(prompt.entities)]
        whole = not model.test_cfg.referring.subject_only
        if samples[image].get("tokens_positive") == REFERRING and whole:
            classes = None
        else:  # the text encoder may have padded further than the longest prompt
            logits = logits[:, : maps_of_tokens.shape[-1]]
        instances = model.bbox_head.detect(
            logits, output.boxes[-1, row], classes, samples[image].img_shape[:2]
        )
        instances.labels = instances.labels + prompt.label_offset
        results.append(instances)
    return results


def _finish(
    model: GroundingDINO,
    found: Sequence[InstanceData],
    chunks: Sequence[Prompt],
    sample: DetDataSample,
    rescale: bool,
) -> InstanceData:
    instances = InstanceData.cat(list(found))
    if len(found) > 1:
        best = instances.scores.argsort(descending=True, stable=True)
        if model.test_cfg.limit_per == "image":
            best = best[: model.test_cfg.max_per_img]
        instances = instances[best]
    if sample.get("tokens_positive") == REFERRING and model.test_cfg.referring.position_boost:
        instances = _prefer_named_side(instances, sample)
    if rescale:
        width, height = sample.scale_factor
        scale = torch.tensor([width, height, width, height], dtype=instances.bboxes.dtype)
        instances.bboxes = instances.bboxes / scale.to(instances.bboxes.device, non_blocking=True)
    names = [name for prompt in chunks for name in prompt.entities]
    instances.label_names = [names[label] for label in instances.labels.tolist()]
    return instances


def _prefer_named_side(instances: InstanceData, sample: DetDataSample) -> InstanceData:
    instances.scores = position_boost(
        sample.text, instances.bboxes, instances.scores, sample.img_shape[:2]
    )
    return instances[instances.scores.argsort(descending=True, stable=True)]
