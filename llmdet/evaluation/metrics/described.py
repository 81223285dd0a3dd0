"""Benchmarks in which every image has its own list of descriptions, as mmengine metrics."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmdet.errors import DataError
from llmdet.evaluation.d3 import d3_ap
from llmdet.evaluation.detections import Detections
from llmdet.evaluation.ground_truth import GroundTruth, read_coco
from llmdet.evaluation.metrics.base import (
    CategoryMetric,
    Columns,
    DetectionMetric,
    label_ids,
)
from llmdet.evaluation.omnilabel import (
    ONE_CLASS,
    OmniLabelTruth,
    omnilabel_ap,
    read_omnilabel,
)
from llmdet.evaluation.ovdeval import nms_ap
from llmdet.registry import METRICS


class DescribedMetric(DetectionMetric):
    """Collects category ids in place of labels: the label space is the image's own."""

    def collect(
        self,
        image_id: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        labels: np.ndarray,
        sample: Mapping[str, Any],
    ) -> None:
        ids = label_ids(sample)
        if ids is None:
            raise DataError(
                f"{type(self).__name__}: image {image_id} has no category_ids; add 'category_ids' "
                "to the meta_keys of PackDetInputs, or end the pipeline with PackGroundingInputs"
            )
        super().collect(image_id, boxes, scores, ids[labels], sample)


class DescribedCocoMetric(DescribedMetric, CategoryMetric):
    """COCO annotations whose categories are descriptions."""

    def read_truth(self, path: str) -> GroundTruth:
        return read_coco(path)

    def to_detections(
        self, columns: Columns, truth: GroundTruth, classes: tuple[str, ...]
    ) -> Detections:
        images, categories, boxes, scores, _ = columns
        return Detections(images, categories.astype(np.int64), boxes, scores)


@METRICS.register_module(name=["D3Metric", "DODCocoMetric"])
class D3Metric(DescribedCocoMetric):
    """D3 AP of one of its annotation files (full, pres or abs) and by length of description.

    Args:
        ann_file: ``d3_{full,pres,abs}_annotations.json``.
        **common: of :class:`CategoryMetric`.
    """

    default_prefix = "d3"

    def summarize(self, truth: GroundTruth, detections: Detections) -> dict[str, float]:
        return d3_ap(truth, detections)


@METRICS.register_module()
class OVDEvalMetric(DescribedCocoMetric):
    """OVDEval's NMS-AP of one of its files.

    Args:
        ann_file: annotations of a file of OVDEval.
        **common: of :class:`CategoryMetric`.
    """

    default_prefix = "ovdeval"

    def summarize(self, truth: GroundTruth, detections: Detections) -> dict[str, float]:
        return nms_ap(truth, detections)


@METRICS.register_module()
class OmniLabelMetric(DescribedMetric):
    """OmniLabel AP.

    Args:
        ann_file: OmniLabel annotations.
        **common: of :class:`DetectionMetric`.
    """

    default_prefix = "omnilabel"

    def score(self, columns: Columns, ann_file: str) -> dict[str, float]:
        truth = read_omnilabel(ann_file)
        values = omnilabel_ap(truth, _by_pair(columns, truth))
        return {name.replace(" 0.50:0.95", ""): value for name, value in values.items()}


def _by_pair(columns: Columns, truth: OmniLabelTruth) -> Detections:
    images, descriptions, boxes, scores, _ = columns
    keys = zip(images.tolist(), descriptions.tolist(), strict=True)
    pairs = np.asarray([truth.pairs.get(key, -1) for key in keys], np.int64)
    known = pairs >= 0
    return Detections(
        pairs[known], np.full(int(known.sum()), ONE_CLASS), boxes[known], scores[known]
    )
