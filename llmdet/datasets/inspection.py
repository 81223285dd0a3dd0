"""Look at training samples as the model will get them: after the whole pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from llmdet.datasets.sample import grounding_of
from llmdet.datasets.text_encoder import share_text_encoder
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.writing import entity_names, prompt_summary
from llmdet.registry import DATASETS


@dataclass(frozen=True)
class SeenSample:
    """One sample after the pipeline, ready to be drawn."""

    index: int  # in the data set
    path: str  # of the picture
    image: np.ndarray  # [H, W, 3] uint8 RGB
    boxes: np.ndarray  # [N, 4] float xyxy in pixels of image
    labels: tuple[int, ...]  # N
    phrases: tuple[str, ...]  # N, the words of the prompt that name the box
    text: str  # the prompt, or the class names joined
    caption: str | None  # what the language model is to say of the image
    region_captions: Mapping[int, str]  # box -> what it is to say of the region


def build_dataset(config: Config, split: str = "train") -> Any:
    """Build the data set of ``{split}_dataloader`` with its pipeline.

    Raises:
        ConfigError: The config has no such loader, or model and data name different text encoders.
        DataError: An annotation file is missing or broken.
    """
    loader = config.get(f"{split}_dataloader")
    if loader is None:
        raise ConfigError(f"{config.filename}: there is no {split}_dataloader")
    share_text_encoder(config)
    init_default_scope(config.get("default_scope", "llmdet"))
    dataset = DATASETS.build(loader.dataset)
    if hasattr(dataset, "full_init"):
        dataset.full_init()
    return dataset


def leaf_datasets(dataset: Any) -> list[Any]:
    """The data sets inside concatenations and wrappers, those that read a file."""
    inner = list(getattr(dataset, "datasets", ()))
    if getattr(dataset, "dataset", None) is not None:
        inner.append(dataset.dataset)
    return [leaf for part in inner for leaf in leaf_datasets(part)] if inner else [dataset]


def class_names(dataset: Any) -> tuple[str, ...] | None:
    """The class names of a leaf data set, None for free text."""
    classes = getattr(dataset, "metainfo", {}).get("classes")
    return tuple(classes) if classes else None


def spread_indices(length: int, number: int) -> list[int]:
    """``number`` positions spread evenly over a data set (all, if it is smaller)."""
    return sorted(set(np.linspace(0, length - 1, min(number, length)).round().astype(int).tolist()))


def load_samples(
    dataset: Any, indices: Sequence[int], *, bgr: bool = True
) -> Iterator[SeenSample | None]:
    """Run the pipeline on rows of a data set; None where the pipeline filters the row.

    Args:
        dataset: Any data set whose pipeline ends with ``PackGroundingInputs``.
        indices: Positions in the data set.
        bgr: Whether the pipeline's images are BGR, as mmcv loads them.

    Raises:
        DataError: A row is broken or its labels do not fit its prompt.
    """
    for index in indices:
        packed = dataset.prepare_data(index) if hasattr(dataset, "prepare_data") else dataset[index]
        yield None if packed is None else seen_sample(packed, index, bgr=bgr)


def seen_sample(packed: Mapping[str, Any], index: int, *, bgr: bool = True) -> SeenSample:
    """Unpack what ``PackGroundingInputs`` made."""
    inputs, sample = packed["inputs"], packed["data_samples"]
    image = inputs.permute(1, 2, 0).to(torch.uint8).numpy()
    image = np.ascontiguousarray(image[..., ::-1] if bgr else image)
    instances = sample.gt_instances
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    labels = tuple(int(label) for label in instances.labels)
    meta = sample.metainfo
    path = meta.get("img_path", "")
    prompt = grounding_of(sample).prompt
    names = {label: name for label, name in enumerate(entity_names(prompt)) if name}
    unnamed = sorted(set(labels) - set(names))
    if unnamed and names:
        raise DataError(
            f"{path}: label(s) {unnamed} have no words in the prompt {prompt_summary(prompt)!r}"
        )
    said = grounding_of(sample).conversations
    return SeenSample(
        index=index,
        path=path,
        image=image,
        boxes=np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        labels=labels,
        phrases=tuple(names.get(label, f"label {label}") for label in labels),
        text=prompt_summary(prompt),
        caption=next((c.turns[-1].text for c in said if "image" in c.kinds), None),
        region_captions={c.slots[0].index: c.turns[-1].text for c in said if c.kinds == {"region"}},
    )
