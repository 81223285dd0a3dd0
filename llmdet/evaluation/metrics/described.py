"""Benchmarks whose categories are descriptions, which each image has of its own."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from llmdet.evaluation.d3 import d3_ap
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import GroundTruth, read_coco
from llmdet.evaluation.metrics.detection import BoxReport, Values
from llmdet.evaluation.metrics.reducers import Boxes
from llmdet.evaluation.metrics.shell import Collected, MetricShell
from llmdet.evaluation.omnilabel import ONE_CLASS, omnilabel_ap, read_omnilabel
from llmdet.evaluation.ovdeval import nms_ap
from llmdet.registry import METRICS


class DescribedMetric(MetricShell):
    """AP over descriptions, which each image has of its own.

    Args:
        ann_file: COCO annotations whose categories are the descriptions.
        format_only: see :class:`BoxReport`, likewise outfile_prefix.
        **shell: of :class:`MetricShell`.
    """

    ap: Callable[[GroundTruth, DetectionTable], Values]

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        **shell: Any,
    ) -> None:
        report = BoxReport(type(self).__name__, format_only, outfile_prefix)
        evaluation = partial(described_values, ap=self.ap, report=report)
        super().__init__(ann_file, Boxes(label_space="image"), evaluation, **shell)


@METRICS.register_module(name=["D3Metric", "DODCocoMetric"])
class D3Metric(DescribedMetric):
    """D3 AP of ``d3_{full,pres,abs}_annotations.json``, and by length of description."""

    default_prefix = "d3"
    ap = staticmethod(d3_ap)


@METRICS.register_module()
class OVDEvalMetric(DescribedMetric):
    """OVDEval's NMS-AP of one of its files."""

    default_prefix = "ovdeval"
    ap = staticmethod(nms_ap)


@METRICS.register_module()
class OmniLabelMetric(MetricShell):
    """OmniLabel AP.

    Args:
        ann_file: OmniLabel annotations.
        categories: report what is about names of categories too; False where the data set does
            not ask for them.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "omnilabel"

    def __init__(
        self, ann_file: str | None = None, *, categories: bool = True, **shell: Any
    ) -> None:
        compute = partial(omnilabel_values, categories=categories)
        super().__init__(ann_file, Boxes(label_space="image"), compute, **shell)


def described_values(
    found: Collected, ap: Callable[[GroundTruth, DetectionTable], Values], report: BoxReport
) -> Values:
    """AP over descriptions: COCO annotations whose categories are an image's own labels."""
    images, categories, boxes, scores, _ = found.columns
    detections = DetectionTable(images, categories, boxes, scores)
    return report.of(detections, lambda: ap(read_coco(found.ann_file), detections))


def omnilabel_values(found: Collected, categories: bool = True) -> Values:
    """OmniLabel AP, with or without what is about names of categories."""
    truth = read_omnilabel(found.ann_file)
    images, descriptions, boxes, scores, _ = found.columns
    keys = zip(images.tolist(), descriptions.tolist(), strict=True)
    pairs = np.asarray([truth.pairs.get(key, -1) for key in keys], np.int64)
    known = pairs >= 0
    classes = np.full(int(known.sum()), ONE_CLASS)
    values = omnilabel_ap(truth, DetectionTable(pairs[known], classes, boxes[known], scores[known]))
    return {
        name.replace(" 0.50:0.95", ""): value
        for name, value in values.items()
        if categories or "categ" not in name
    }
