"""Test-time augmentation: the same image at several scales, detections merged by class."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from mmcv.ops import batched_nms
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData

from llmdet.errors import ConfigError
from llmdet.registry import MODELS
from llmdet.utils.config import leaf_datasets

#: Sides of the three views relative to the config's test scale.
SCALES = (0.75, 1.0, 1.25)


@MODELS.register_module()
class GroundingTTAModel(BaseTTAModel):
    """Merges the detections of all views of an image by non-maximum suppression per class.

    Args:
        iou_threshold: boxes of one class that overlap a better one by more than this are dropped.
        max_per_img: boxes kept of an image; all, where ``test_cfg.limit_per`` is "chunk".
        module: the detector, as mmengine's :class:`~mmengine.model.BaseTTAModel` takes it.
        data_preprocessor: its preprocessor, likewise.
    """

    def __init__(
        self,
        module: Any,
        iou_threshold: float = 0.7,
        max_per_img: int = 300,
        data_preprocessor: Any = None,
    ) -> None:
        super().__init__(module=module, data_preprocessor=data_preprocessor)
        self.iou_threshold = iou_threshold
        self.max_per_img = max_per_img

    def merge_preds(self, data_samples_list: list[list[DetDataSample]]) -> list[DetDataSample]:
        """One sample per image, boxes xyxy in pixels of the original image, best first.

        Args:
            data_samples_list: per image its views with predictions in the original image.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: Sequence[DetDataSample]) -> DetDataSample:
        merged = InstanceData.cat([_unflipped(view) for view in views])
        nms = {"type": "nms", "iou_threshold": self.iou_threshold}
        if len(merged):
            _, keep = batched_nms(merged.bboxes, merged.scores, merged.labels, nms)
            capped = views[0].get("limit_per") != "chunk"
            merged = merged[keep[: self.max_per_img] if capped else keep]
        views[0].pred_instances = merged
        return views[0]


def _unflipped(view: DetDataSample) -> InstanceData:
    predictions = view.pred_instances
    if view.metainfo.get("flip"):
        predictions.bboxes = bbox_flip(predictions.bboxes, view.ori_shape, view.flip_direction)
    return predictions


def use_test_time_augmentation(config: Config) -> None:
    """Switch ``config`` to test-time augmentation, in place (``--tta``).

    ``tta_model`` and ``tta_pipeline`` of the config are used where it has them; otherwise the test
    pipeline is run at :data:`SCALES` times its scale. Views are not flipped by default: "left"
    and "right" in a prompt would change their meaning.

    Raises:
        ConfigError: the test pipeline has no resize whose scale could be varied.
    """
    max_per_img = config.model.get("test_cfg", {}).get("max_per_img", 300)
    default = {"type": "GroundingTTAModel", "max_per_img": max_per_img}
    config.model = ConfigDict(**config.get("tta_model", default), module=config.model)
    for dataset in leaf_datasets(config.test_dataloader.dataset):
        pipeline = config.get("tta_pipeline") or _multi_scale(dataset.pipeline)
        dataset.pipeline = copy.deepcopy(pipeline)


def _multi_scale(pipeline: Sequence[ConfigDict]) -> list[dict[str, Any]]:
    sized = [number for number, step in enumerate(pipeline) if "scale" in step]
    if not sized:
        raise ConfigError(
            "--tta varies the scale of the test pipeline's resize, which this config does not "
            "have: define tta_pipeline in the config."
        )
    first = sized[0]
    views = [
        {**pipeline[first], "scale": tuple(round(side * factor) for side in pipeline[first].scale)}
        for factor in SCALES
    ]
    rest = [[step] for step in pipeline[first + 1 :]]
    return [*pipeline[:first], {"type": "TestTimeAug", "transforms": [views, *rest]}]
