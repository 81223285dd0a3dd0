"""What the language model says of a picture, for pictures in the log of a training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.model import is_model_wrapper

logger = logging.getLogger(__name__)

_MOST_BOXES = 12  # that are described
_MOST_TOKENS = 64  # of a description


@torch.no_grad()
def describe_first(model: Any, data_batch: Mapping[str, Any], found: DetDataSample) -> None:
    """Let a model describe the first image of a batch and the boxes found in it.

    Fills ``found.image_description`` and ``pred_instances.label_names``, where the model has the
    captioners; another model, or one whose weights are spread over processes, is left alone.

    Args:
        model: the model of a runner.
        data_batch: as the data loader gave it.
        found: the first image's sample, with ``pred_instances`` in pixels of the original image;
            those with the best scores are kept.
    """
    while is_model_wrapper(model):
        model = model.module
    captioners = {
        "image": getattr(model, "image_captioner", None),
        "regions": getattr(model, "region_captioner", None),
    }
    kinds = {kind for kind, captioner in captioners.items() if captioner is not None}
    if not kinds:
        return
    if any(
        hasattr(weight, "device_mesh") or hasattr(weight, "ds_id") for weight in model.parameters()
    ):
        logger.warning("a model that is spread over processes describes no pictures")
        return
    shown = found.pred_instances[found.pred_instances.scores.argsort(descending=True)]
    found.pred_instances = shown[:_MOST_BOXES]
    data = {"inputs": data_batch["inputs"][:1], "data_samples": [found.clone()]}
    data = model.data_preprocessor(data, False)
    (sample,) = data["data_samples"]
    boxes = [found.pred_instances.bboxes.to(data["inputs"].device)]
    model.describe(data["inputs"], [sample], kinds, boxes, max_new_tokens=_MOST_TOKENS)
    if "image" in kinds:
        found.set_field(sample.image_description, "image_description", dtype=str)
    if "regions" in kinds:
        found.pred_instances.captions = list(sample.region_descriptions)
