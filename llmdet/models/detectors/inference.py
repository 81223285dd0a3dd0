"""What a detection run is made of: chunks of all images as one list of jobs, maps, results.

Pure functions and values; :meth:`GroundingDINO.detect` puts them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from llmdet.datasets.sample import grounding_of
from llmdet.errors import DataError, naming
from llmdet.models.detectors.settings import TestSettings
from llmdet.models.heads.grounding_head import GroundingDINOHead
from llmdet.models.structures import FeaturePyramid, PromptedFeatures
from llmdet.models.text.bert import BertModel
from llmdet.models.text.referring import position_boost
from llmdet.models.text.token_map import stack_token_maps
from llmdet.models.transformer.boxes import axes_scale
from llmdet.models.transformer.encoder import GroundingDINOEncoder
from llmdet.models.transformer.pyramid import valid_level_sizes
from llmdet.prompts.types import AnyObject, TokenizedPrompt
from llmdet.prompts.writing import expression_texts
from llmdet.utils.memory import free_memory
from llmdet.utils.tensors import copy_to_host, take_rows

Size = tuple[int, int]
#: More chunks in one forward pass than these do not run faster.
MOST_CHUNKS = 8
#: What a forward pass may take of the memory that is free when it begins.
SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True)
class DetectionRun:
    """What a detector found in a batch of B images, and what it saw where that was kept."""

    detections: tuple[InstanceData, ...]  # per image, see GroundingDINO.detect
    limit_per: str  # "image" or "chunk": what TestSettings.max_per_img was applied to
    features: PromptedFeatures | None  # of the first prompt of each of the B images

    def write_to(self, samples: Sequence[DetDataSample]) -> None:
        """Fill ``pred_instances`` and metainfo ``limit_per``, which metrics read."""
        for sample, instances in zip(samples, self.detections, strict=True):
            sample.pred_instances = instances
            sample.set_metainfo({"limit_per": self.limit_per})


@dataclass(frozen=True)
class PaddedMaps:
    """Feature maps of a batch and how much of each is not padding."""

    feats: tuple[Tensor, ...]  # per level [B, C, H, W]
    valid_sizes: tuple[tuple[Size, ...], ...]  # per level and image (height, width)


@dataclass(frozen=True)
class Job:
    """One image of the batch with one of its prompts."""

    image: int
    prompt: TokenizedPrompt


def prompts_of(
    sample: DetDataSample, language_model: BertModel, settings: TestSettings
) -> tuple[TokenizedPrompt, ...]:
    """The texts that a sample's prompt is cut into; see :meth:`GroundingDINO.predict`."""
    grounding = grounding_of(sample)
    if grounding.tokenized:
        return grounding.tokenized
    with naming(sample.get("img_path")):
        if grounding.prompt is None:
            raise DataError("the sample does not say what to look for: it has no text")
        return language_model.prompts(grounding.prompt, settings.prompt_options)


def chunks_at_once(
    pyramid: FeaturePyramid,
    prompts: Sequence[Sequence[TokenizedPrompt]],
    encoder: GroundingDINOEncoder,
    language_model: BertModel,
) -> int:
    """How many pairs of these images and prompts run at once in the memory that is free."""
    longest = max(len(prompt.ids) for chunks in prompts for prompt in chunks)
    tokens = language_model.padded_length(longest)
    floats = encoder.floats_per_pixel(tokens, pyramid.padding_mask is not None)
    return chunks_that_fit(pyramid.feat.shape[1], floats, free_memory(pyramid.feat.device))


def chunks_that_fit(pixels: int, floats_per_pixel: int, free: int | None) -> int:
    """How many pairs of image and prompt run at once, by the size of the images.

    Args:
        pixels: of all levels of an image, all of which a chunk works on.
        floats_per_pixel: numbers, 4 bytes each, that a chunk holds for a pixel.
        free: memory in bytes, None where it is not known.
    """
    if free is None:
        return MOST_CHUNKS
    fitting = int(SHARE_OF_MEMORY * free / (4 * floats_per_pixel * pixels))
    return min(max(fitting, 1), MOST_CHUNKS)


def split_jobs(
    prompts: Sequence[Sequence[TokenizedPrompt]], per_forward: int, first_together: bool
) -> Iterator[list[Job]]:
    """Batches of at most ``per_forward`` jobs; those of an image stay in order.

    Args:
        prompts: of each image, at least one.
        per_forward: most jobs of a batch.
        first_together: make the first batch of the first prompt of every image, in the images'
            order and however many they are: what is computed of them is kept.
    """
    jobs = [Job(image, prompt) for image, chunks in enumerate(prompts) for prompt in chunks]
    if first_together:
        yield [Job(image, chunks[0]) for image, chunks in enumerate(prompts)]
        jobs = [Job(image, prompt) for image, chunks in enumerate(prompts) for prompt in chunks[1:]]
    for start in range(0, len(jobs), per_forward):
        yield jobs[start : start + per_forward]


def padded_maps(
    extract: Callable[[Tensor], tuple[Tensor, ...]],
    images: Tensor,
    sizes: Sequence[Size],
    pad_first: bool,
) -> PaddedMaps:
    """Extract features such that no image's depend on another's size.

    Windows and group norms of backbone and neck see padding, so images of equal size run
    together without it and their maps are padded afterwards.

    Args:
        extract: gives one [B, C, H, W] map per level of images [B, 3, H, W].
        images: [B, 3, H, W], padded right and below.
        sizes: (height, width) of each image before padding.
        pad_first: run all images together as they are padded.
    """
    padded = (images.shape[-2], images.shape[-1])
    if pad_first or all(size == padded for size in sizes):
        feats = extract(images)
        shapes = [(feat.shape[-2], feat.shape[-1]) for feat in feats]
        valid = valid_level_sizes(sizes, padded, shapes)
        return PaddedMaps(feats, tuple(tuple(level) for level in valid))
    groups: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    by_image: list[tuple[Tensor, ...]] = [()] * len(sizes)
    for (height, width), members in groups.items():
        rows = torch.tensor(members).to(images.device, non_blocking=True)
        feats = extract(images[rows, :, :height, :width])
        for position, index in enumerate(members):
            by_image[index] = tuple(feat[position] for feat in feats)
    levels = list(zip(*by_image, strict=True))
    valid_sizes = tuple(tuple((m.shape[-2], m.shape[-1]) for m in level) for level in levels)
    return PaddedMaps(tuple(_stack_padded(level) for level in levels), valid_sizes)


def _stack_padded(maps: Sequence[Tensor]) -> Tensor:
    height, width = (max(m.shape[axis] for m in maps) for axis in (-2, -1))
    return torch.stack([F.pad(m, (0, width - m.shape[-1], 0, height - m.shape[-2])) for m in maps])


def read_detections(
    head: GroundingDINOHead,
    features: PromptedFeatures,
    jobs: Sequence[Job],
    samples: Sequence[DetDataSample],
    settings: TestSettings,
) -> list[InstanceData]:
    """The detections of each job, in pixels of the input, labels of the whole class list."""

    def scoring(job: Job) -> str:
        """What scores a query: tokens of each class, its best token, or that of its proposal."""
        prompt = grounding_of(samples[job.image]).prompt
        if isinstance(prompt, AnyObject):
            return "proposal"
        whole = expression_texts(prompt) and not settings.referring.subject_only
        return "whole" if whole else "classes"

    kinds = [scoring(job) for job in jobs]
    results: dict[int, InstanceData] = {}
    for kind in dict.fromkeys(kinds):
        rows = [row for row, of_job in enumerate(kinds) if of_job == kind]
        alike = [jobs[row] for row in rows]
        predicted = features.predictions
        scores = features.proposals.logits if kind == "proposal" else predicted.logits[-1]
        logits, boxes = take_rows([scores, predicted.boxes[-1]], rows)
        sizes = [
            (samples[job.image].img_shape[0], samples[job.image].img_shape[1]) for job in alike
        ]
        if kind == "classes":
            maps = stack_token_maps([job.prompt for job in alike])
            maps = maps.to(logits.device, non_blocking=True)
            known = logits[..., : maps.shape[-1]]  # the text encoder may have padded further
            counts = [len(job.prompt.entities) for job in alike]
            found = head.detect(known, boxes, maps, counts, sizes)
        else:
            found = head.detect(logits, boxes, None, [1] * len(rows), sizes)
        for row, job, instances in zip(rows, alike, found, strict=True):
            instances.labels = instances.labels + job.prompt.label_offset
            results[row] = instances
    return [results[row] for row in range(len(jobs))]


def join_chunks(
    found: Sequence[InstanceData],
    sample: DetDataSample,
    settings: TestSettings,
    rescale: bool,
) -> InstanceData:
    """The detections of one image from those of its prompts, best first.

    Args:
        found: detections of each prompt, in pixels of the input.
        sample: the image; ``scale_factor`` (width, height) is read where ``rescale`` is set.
        settings: what is kept.
        rescale: give boxes in pixels of the original image.
    """
    texts = expression_texts(grounding_of(sample).prompt)
    if texts and settings.referring.position_boost:
        size = sample.img_shape[:2]
        found = [_prefer_named_side(*of, size) for of in zip(found, texts, strict=True)]
    instances = InstanceData.cat(list(found))
    if len(found) > 1:
        best = instances.scores.argsort(descending=True, stable=True)
        if settings.limit_per == "image":
            best = best[: settings.max_per_img]
        instances = instances[best]
    return to_original(instances, sample) if rescale else instances


def to_original(instances: InstanceData, sample: DetDataSample) -> InstanceData:
    """Put ``bboxes`` in pixels of the input into those of the original image, in place."""
    width, height = sample.scale_factor
    instances.bboxes = instances.bboxes / axes_scale(width, height, instances.bboxes)
    return instances


def bring_to_host(
    found: Sequence[InstanceData], names: Sequence[Sequence[str]]
) -> tuple[InstanceData, ...]:
    """The detections of all images on the host, by one transfer, with ``label_names``.

    Args:
        found: of each image, tensors on any device.
        names: of each image, those of its labels.
    """
    fields = [list(instances.items()) for instances in found]
    copies = iter(copy_to_host([value for items in fields for _, value in items]))
    named = []
    for items, of_image in zip(fields, names, strict=True):
        instances = InstanceData(**{name: next(copies) for name, _ in items})
        instances.label_names = [of_image[label] for label in instances.labels.tolist()]
        named.append(instances)
    return tuple(named)


def _prefer_named_side(instances: InstanceData, expression: str, size: Size) -> InstanceData:
    instances.scores = position_boost(expression, instances.bboxes, instances.scores, size)
    return instances[instances.scores.argsort(descending=True, stable=True)]
