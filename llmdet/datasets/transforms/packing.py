"""The end of a pipeline: what the detector, the language model and the metrics read."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.datasets.transforms import PackDetInputs

from llmdet.errors import ConfigError
from llmdet.registry import TRANSFORMS

#: What anything after the pipeline may ask a sample for.
META_KEYS = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "flip",
    "flip_direction",
    "text",
    "tokens_positive",
    "custom_entities",
    "caption_prompt",
    "tags",
    "dataset_mode",
    "image_caption",
    "region_captions",
    "phrases",
    "phrase_ids",
    "category_ids",
    "sent_ids",
)


@TRANSFORMS.register_module()
class PackGroundingInputs(PackDetInputs):
    """mmdet's ``PackDetInputs`` that keeps by itself what prompts, captions and metrics need.

    Required keys: img, and for annotations gt_bboxes, gt_bboxes_labels.
    Added keys: inputs (uint8 tensor [C, H, W]) and data_samples (a ``DetDataSample`` whose
    metainfo holds those of :data:`META_KEYS` and ``more_keys`` that the sample has).

    Args:
        more_keys: of the sample, for parts of one's own.

    Raises:
        ConfigError: ``more_keys`` is a text, not a list of texts.
    """

    def __init__(self, more_keys: Sequence[str] = ()) -> None:
        if isinstance(more_keys, str):
            raise ConfigError(f"PackGroundingInputs: more_keys is a list, such as [{more_keys!r}]")
        super().__init__(meta_keys=(*META_KEYS, *more_keys))
