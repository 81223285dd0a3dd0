"""LVIS AP and fixed AP as mmengine metrics."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmdet.errors import ConfigError
from llmdet.evaluation.detections import Detections
from llmdet.evaluation.ground_truth import LVISGroundTruth, labels_to_categories, read_lvis
from llmdet.evaluation.lvis import (
    MAX_DETS_PER_CLASS,
    MAX_DETS_PER_IMAGE,
    cap_per_class,
    cap_per_image,
    lvis_curves,
    lvis_summary,
)
from llmdet.evaluation.metrics.base import CategoryMetric, Columns
from llmdet.evaluation.metrics.coco import REASONS, BoxMetric, class_precisions
from llmdet.evaluation.topk import TopDetections
from llmdet.registry import METRICS


@METRICS.register_module()
class LVISMetric(BoxMetric):
    """LVIS box AP: at most 300 detections per image over all classes.

    Args:
        ann_file: LVIS annotations.
        **common: of :class:`BoxMetric`.
    """

    default_prefix = "lvis"
    reasons = REASONS | {
        "iou_thrs": "LVIS AP is defined over 0.5:0.05:0.95",
        "proposal_nums": "LVIS AP is defined with 300 detections per image",
    }

    def collect(
        self,
        image_id: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        sample: Mapping[str, Any],
    ) -> None:
        if len(scores) > MAX_DETS_PER_IMAGE:
            best = np.argsort(-scores, kind="stable")[:MAX_DETS_PER_IMAGE]
            boxes, scores, labels = boxes[best], scores[best], labels[best]
        super().collect(image_id, boxes, scores, labels, sample)

    def read_truth(self, path: str) -> LVISGroundTruth:
        return read_lvis(path)

    def to_detections(
        self, columns: Columns, truth: LVISGroundTruth, classes: tuple[str, ...]
    ) -> Detections:
        return _lvis_detections(columns, truth, classes)

    def summarize(self, truth: LVISGroundTruth, detections: Detections) -> dict[str, float]:
        curves = lvis_curves(truth, cap_per_image(detections))
        values = lvis_summary(truth, curves, MAX_DETS_PER_IMAGE)
        if self.metric_items is None:
            values = {name: value for name, value in values.items() if name.startswith("AP")}
        chosen = {f"bbox_{name}": value for name, value in self.choose(values).items()}
        return chosen | (class_precisions(truth.boxes, curves) if self.classwise else {})


@METRICS.register_module()
class LVISFixedAPMetric(CategoryMetric):
    """LVIS fixed AP: the best 10,000 detections of each class over the whole data set.

    Memory is bounded by ``topk`` times the number of classes in every process.

    Args:
        ann_file: LVIS annotations.
        topk: detections kept per class.
        **common: of :class:`CategoryMetric`.
    Source: Dave et al. 2021, section 4.
    """

    default_prefix = "lvis_fixed_ap"
    reasons = REASONS

    def __init__(
        self, ann_file: str | None = None, *, topk: int = MAX_DETS_PER_CLASS, **common: Any
    ) -> None:
        if topk < 1:
            raise ConfigError(f"LVISFixedAPMetric: topk must be at least 1, not {topk}")
        self.topk = topk
        super().__init__(ann_file, **common)

    def reset(self) -> None:
        self._top = TopDetections(self.topk)

    def collect(
        self,
        image_id: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        sample: Mapping[str, Any],
    ) -> None:
        self._top.add(image_id, boxes, scores, labels)

    def arrays(self) -> Columns:
        return self._top.arrays()

    def read_truth(self, path: str) -> LVISGroundTruth:
        return read_lvis(path)

    def to_detections(
        self, columns: Columns, truth: LVISGroundTruth, classes: tuple[str, ...]
    ) -> Detections:
        detections = _lvis_detections(columns, truth, classes)
        return cap_per_class(truth, detections, self.topk)

    def summarize(self, truth: LVISGroundTruth, detections: Detections) -> dict[str, float]:
        values = lvis_summary(truth, lvis_curves(truth, detections), max_dets=-1)
        return {name: value for name, value in values.items() if name.startswith("AP")}


def _lvis_detections(
    columns: Columns, truth: LVISGroundTruth, classes: tuple[str, ...]
) -> Detections:
    images, labels, boxes, scores, _ = columns
    if classes:
        categories = labels_to_categories(classes, truth.boxes)
    else:
        categories = truth.boxes.category_ids
    return Detections(images, categories[labels], boxes, scores)
