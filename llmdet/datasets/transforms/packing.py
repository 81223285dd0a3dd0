"""The end of a pipeline: what the detector, the language model and the metrics read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.datasets.transforms import PackDetInputs

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


@TRANSFORMS.register_module()
class PackGroundingInputs(PackDetInputs):
    """mmdet's ``PackDetInputs`` that adds the typed sample.

    Required keys: img, and for annotations gt_bboxes, gt_bboxes_labels.
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
        super().__init__(meta_keys=(*META_KEYS, *more_keys))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack one sample; see the class for keys."""
        packed = super().transform(results)
        packed["data_samples"].set_metainfo({"grounding": read_grounding(results)})
        return packed
