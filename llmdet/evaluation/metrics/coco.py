"""COCO box AP as an mmengine metric."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmdet.errors import ConfigError
from llmdet.evaluation.average_precision import IOU_THRESHOLDS, PrecisionRecall
from llmdet.evaluation.coco import MMDET_MAX_DETS, coco_curves, coco_summary
from llmdet.evaluation.detections import Detections
from llmdet.evaluation.ground_truth import GroundTruth, labels_to_categories, read_coco
from llmdet.evaluation.metrics.base import CategoryMetric, Columns
from llmdet.registry import METRICS

MMDET_NAMES = {  # mmdet's name of each number of pycocotools
    "AP": "mAP",
    "AP50": "mAP_50",
    "AP75": "mAP_75",
    "APs": "mAP_s",
    "APm": "mAP_m",
    "APl": "mAP_l",
}
REASONS = {
    "file_client_args": "use backend_args",
    "use_mp_eval": "evaluation is one vectorised pass",
    "sort_categories": "labels are matched to categories by name",
}


class BoxMetric(CategoryMetric):
    """Settings that mmdet's COCO and LVIS metrics share.

    Args:
        ann_file: COCO or LVIS annotations.
        metric: only ``bbox``.
        classwise: also report ``NAME_precision`` of each class.
        metric_items: names of metrics to report, all APs if None.
        **common: of :class:`CategoryMetric`.
    """

    reasons = REASONS

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        metric: str | Sequence[str] = "bbox",
        classwise: bool = False,
        metric_items: Sequence[str] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(ann_file, **common)
        name = type(self).__name__
        metrics = [metric] if isinstance(metric, str) else list(metric)
        if metrics != ["bbox"]:
            raise ConfigError(
                f"{name}: metric must be 'bbox', not {metric!r}; boxes alone are judged"
            )
        self.classwise = classwise
        self.metric_items = metric_items

    def choose(self, values: Mapping[str, float]) -> dict[str, float]:
        """The metrics named in ``metric_items``, all if it is None."""
        if self.metric_items is None:
            return dict(values)
        unknown = [item for item in self.metric_items if item not in values]
        if unknown:
            raise ConfigError(
                f"{type(self).__name__}: metric item {unknown[0]!r} is not one of "
                f"{', '.join(values)}"
            )
        return {item: values[item] for item in self.metric_items}


@METRICS.register_module()
class CocoMetric(BoxMetric):
    """COCO box AP with mmdet's arguments and metric names, at full precision.

    As in mmdet, ``mAP`` is taken at 100 detections per image and category, the others at the
    largest of ``proposal_nums``.

    Args:
        ann_file: COCO annotations.
        proposal_nums: limits per image and category.
        iou_thrs: IoU thresholds, 0.5:0.05:0.95 if None.
        **common: of :class:`BoxMetric`.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        proposal_nums: Sequence[int] = MMDET_MAX_DETS,
        iou_thrs: float | Sequence[float] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(ann_file, **common)
        name = type(self).__name__
        thresholds = IOU_THRESHOLDS if iou_thrs is None else np.atleast_1d(iou_thrs)
        if not (np.all(np.diff(thresholds) > 0) and np.all((thresholds > 0) & (thresholds <= 1))):
            raise ConfigError(f"{name}: iou_thrs must ascend within (0, 1], not {iou_thrs!r}")
        if list(proposal_nums) != sorted(set(proposal_nums)) or min(proposal_nums) < 1:
            raise ConfigError(
                f"{name}: proposal_nums must be ascending positive numbers, not {proposal_nums!r}"
            )
        self.proposal_nums = tuple(int(number) for number in proposal_nums)
        self.iou_thresholds = np.asarray(thresholds, np.float64)

    def read_truth(self, path: str) -> GroundTruth:
        return read_coco(path)

    def to_detections(
        self, columns: Columns, truth: GroundTruth, classes: tuple[str, ...]
    ) -> Detections:
        images, labels, boxes, scores, _ = columns
        return Detections(images, labels_to_categories(classes, truth)[labels], boxes, scores)

    def summarize(self, truth: GroundTruth, detections: Detections) -> dict[str, float]:
        curves = coco_curves(truth, detections, self.proposal_nums, self.iou_thresholds)
        summary = coco_summary(curves)
        values = {
            MMDET_NAMES.get(key, _recall_name(key, self.proposal_nums)): value
            for key, value in summary.items()
        }
        if self.metric_items is None:
            values = {name: values[name] for name in MMDET_NAMES.values()}
        chosen = {f"bbox_{name}": value for name, value in self.choose(values).items()}
        return chosen | (class_precisions(truth, curves) if self.classwise else {})


def class_precisions(truth: GroundTruth, curves: PrecisionRecall) -> dict[str, float]:
    """``NAME_precision`` of every class, NaN for a class without boxes, as mmdet names them."""
    values = curves.per_category()
    named = zip(truth.category_names, truth.category_ids.tolist(), strict=True)
    return {
        f"{name}_precision": values[category] if values[category] > -1 else float("nan")
        for name, category in named
    }


def _recall_name(key: str, limits: tuple[int, ...]) -> str:
    return key if "@" in key else f"AR_{key[-1]}@{limits[-1]}"
