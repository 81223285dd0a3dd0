"""The end of a pipeline: what the detector, the language model and the metrics read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from llmdet.datasets.sample import read_grounding
from llmdet.errors import ConfigError
from llmdet.registry import TRANSFORMS

#: mmdet's fields of a sample.
META_KEYS = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "flip",
    "flip_direction",
)
#: mmdet's names of annotations in a pipeline -> in a sample.
INSTANCE_KEYS = {"gt_bboxes": "bboxes", "gt_bboxes_labels": "labels", "gt_masks": "masks"}


@TRANSFORMS.register_module()
class PackGroundingInputs(BaseTransform):
    """mmdet's ``PackDetInputs`` for detection, that adds the typed sample.

    Required keys: img, and for annotations gt_bboxes, gt_bboxes_labels, gt_masks and
    gt_ignore_flags.
    Added keys: inputs (uint8 tensor [C, H, W]) and data_samples (a ``DetDataSample`` whose
    metainfo holds those of :data:`META_KEYS` and ``more_keys`` that the sample has, and
    ``grounding``, a :class:`~llmdet.datasets.sample.GroundingSample`).

    Args:
        more_keys: further fields of the sample to keep as metainfo.

    Raises:
        ConfigError: ``more_keys`` is a text, not a list of texts.
    """

    def __init__(self, more_keys: Sequence[str] = ()) -> None:
        if isinstance(more_keys, str):
            raise ConfigError(f"PackGroundingInputs: more_keys is a list, such as [{more_keys!r}]")
        self.meta_keys = (*META_KEYS, *more_keys)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack one sample; see the class for keys."""
        image = results["img"]
        pixels = image.reshape(*image.shape[:2], -1)  # [H, W, C], also where it is [H, W]
        inputs = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous()
        sample = DetDataSample(metainfo={k: results[k] for k in self.meta_keys if k in results})
        sample.set_metainfo({"grounding": read_grounding(results)})
        sample.gt_instances, sample.ignored_instances = _instances(results)
        return {"inputs": inputs, "data_samples": sample}


def _instances(results: Mapping[str, Any]) -> tuple[InstanceData, InstanceData]:
    """Boxes, labels and masks of the objects, and of those that metrics are to ignore."""
    objects, ignored = InstanceData(), InstanceData()
    flags = results.get("gt_ignore_flags")  # [N] bool
    for key, name in INSTANCE_KEYS.items():
        if key not in results:
            continue
        value = results[key]
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if flags is None:
            objects[name] = value
        else:
            objects[name] = value[np.flatnonzero(flags == 0)]
            ignored[name] = value[np.flatnonzero(flags == 1)]
    return objects, ignored
