"""Images on their way into the model: prepared by a pipeline, then read by backbone and neck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate

from llmdet.apis.images import Source
from llmdet.apis.results import Picture
from llmdet.errors import DataError
from llmdet.models.structures import FeaturePyramid


@dataclass(frozen=True)
class ImagePipeline:
    """What turns a file or an array into the input of a model."""

    load: Compose  # from img_path to img, [H, W, 3] uint8 BGR
    prepare: Compose  # from img to inputs and data_samples


@dataclass(frozen=True)
class PreparedImage:
    """An image as the pipeline gives it."""

    picture: Picture
    inputs: torch.Tensor  # [3, H, W]
    sample: DetDataSample


@dataclass(frozen=True)
class ReadImages:
    """B images as the model sees them, with all that no text changes."""

    pictures: tuple[Picture, ...]
    inputs: torch.Tensor  # [B, 3, H, W]
    samples: Sequence[DetDataSample]
    pyramid: FeaturePyramid


def prepare_image(pipeline: ImagePipeline, source: Source) -> PreparedImage:
    """Read an image, where it is a file, and make it the input of a model.

    Raises:
        DataError: the file cannot be read.
    """
    if isinstance(source, np.ndarray):
        shape = source.shape[:2]
        pixels = np.ascontiguousarray(source[..., ::-1])  # pipelines are written for BGR
        fields = {"img": pixels, "img_path": None, "img_shape": shape, "ori_shape": shape}
    else:
        fields = pipeline.load({"img_path": str(source)})
        if fields is None:  # by ignore_empty of the config
            raise DataError(f"the picture {source} cannot be read")
        shape = fields["img"].shape[:2]
    picture = Picture(source, int(shape[1]), int(shape[0]))
    packed = pipeline.prepare(fields)
    return PreparedImage(picture, packed["inputs"], packed["data_samples"])


@torch.no_grad()
def read_images(model: Any, images: Sequence[PreparedImage]) -> ReadImages:
    """Run what no text changes on a batch."""
    batch = [{"inputs": image.inputs, "data_samples": image.sample} for image in images]
    data = model.data_preprocessor(pseudo_collate(batch), False)
    inputs, samples = data["inputs"], data["data_samples"]
    with model.test_cfg.arithmetic(inputs.device):
        pyramid = model.read_images(inputs, samples)
    return ReadImages(tuple(image.picture for image in images), inputs, samples, pyramid)
