"""Boxes with categories, COCO and LVIS, and boxes without."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.errors import ConfigError
from llmdet.evaluation.average_precision import IOU_THRESHOLDS, PrecisionRecall
from llmdet.evaluation.coco_ap import MMDET_MAX_DETS, coco_curves, coco_summary
from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import (
    GroundTruth,
    LVISGroundTruth,
    read_coco,
    read_lvis,
)
from llmdet.evaluation.lvis_ap import (
    MAX_DETS_PER_CLASS,
    MAX_DETS_PER_IMAGE,
    cap_per_class,
    cap_per_image,
    lvis_curves,
    lvis_summary,
)
from llmdet.evaluation.metrics.reducers import BestOfClass, Boxes
from llmdet.evaluation.metrics.shell import Collected, MetricShell
from llmdet.evaluation.proposal_recall import LIMITS, proposal_recall
from llmdet.registry import METRICS

Values = dict[str, float]

MMDET_NAMES = {  # mmdet's name of each number of pycocotools
    "AP": "mAP",
    "AP50": "mAP_50",
    "AP75": "mAP_75",
    "APs": "mAP_s",
    "APm": "mAP_m",
    "APl": "mAP_l",
}
MMDET_SETTINGS = {
    "file_client_args": "use backend_args",
    "use_mp_eval": "evaluation is one vectorised pass",
    "sort_categories": "labels are matched to categories by name",
}


@dataclasses.dataclass(frozen=True)
class BoxReport:
    """What is made of detections beside the metrics' values.

    Raises:
        ConfigError: results are wanted and have no place.
    """

    metric: str  # name of the class, for messages
    format_only: bool = False  # write COCO results and compute nothing
    outfile_prefix: str | None = None  # if given, COCO results go to PREFIX.bbox.json
    metric_items: Sequence[str] | None = None  # names of values to report, all APs if None
    classwise: bool = False  # also report NAME_precision of each class

    def __post_init__(self) -> None:
        if self.format_only and self.outfile_prefix is None:
            raise ConfigError(
                f"{self.metric}: format_only writes to outfile_prefix, which is not set"
            )

    def of(self, detections: DetectionTable, summarize: Callable[[], Values]) -> Values:
        """The values, after the results are written where this is wanted."""
        if self.outfile_prefix is not None:
            write_coco_results(f"{self.outfile_prefix}.bbox.json", detections)
        return {} if self.format_only else summarize()

    def choose(
        self, values: Values, by_default: Sequence[str], truth: GroundTruth, curves: PrecisionRecall
    ) -> Values:
        """The items to report of all values, named ``bbox_NAME``, and those of classes."""
        items = by_default if self.metric_items is None else self.metric_items
        unknown = [item for item in items if item not in values]
        if unknown:
            raise ConfigError(
                f"{self.metric}: metric item {unknown[0]!r} is not one of {', '.join(values)}"
            )
        chosen = {f"bbox_{item}": values[item] for item in items}
        return chosen | (class_precisions(truth, curves) if self.classwise else {})


@METRICS.register_module()
class CocoMetric(MetricShell):
    """COCO box AP with mmdet's arguments and metric names, at full precision.

    As in mmdet, ``mAP`` is taken at 100 detections per image and category, the others at the
    largest of ``proposal_nums``.

    Args:
        ann_file: COCO annotations.
        metric: only ``bbox``.
        proposal_nums: limits per image and category.
        iou_thrs: IoU thresholds, 0.5:0.05:0.95 if None.
        classwise: see :class:`BoxReport`, likewise metric_items, format_only, outfile_prefix.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "coco"
    refused = MMDET_SETTINGS

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        metric: str | Sequence[str] = "bbox",
        proposal_nums: Sequence[int] = MMDET_MAX_DETS,
        iou_thrs: float | Sequence[float] | None = None,
        classwise: bool = False,
        metric_items: Sequence[str] | None = None,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        **shell: Any,
    ) -> None:
        thresholds = np.asarray(
            IOU_THRESHOLDS if iou_thrs is None else np.atleast_1d(iou_thrs), np.float64
        )
        evaluation = partial(
            coco_values,
            limits=tuple(int(number) for number in proposal_nums),
            iou_thresholds=thresholds,
            report=BoxReport("CocoMetric", format_only, outfile_prefix, metric_items, classwise),
        )
        super().__init__(ann_file, Boxes(), evaluation, **shell)
        check_boxes_alone("CocoMetric", metric)
        if not (np.all(np.diff(thresholds) > 0) and np.all((thresholds > 0) & (thresholds <= 1))):
            raise ConfigError(f"CocoMetric: iou_thrs must ascend within (0, 1], not {iou_thrs!r}")
        check_limits("CocoMetric: proposal_nums", proposal_nums)


@METRICS.register_module()
class LVISMetric(MetricShell):
    """LVIS box AP: at most 300 detections per image over all classes.

    Args:
        ann_file: LVIS annotations.
        metric: only ``bbox``.
        classwise: see :class:`BoxReport`, likewise metric_items, format_only, outfile_prefix.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "lvis"
    refused = MMDET_SETTINGS | {
        "iou_thrs": "LVIS AP is defined over 0.5:0.05:0.95",
        "proposal_nums": "LVIS AP is defined with 300 detections per image",
    }

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        metric: str | Sequence[str] = "bbox",
        classwise: bool = False,
        metric_items: Sequence[str] | None = None,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        **shell: Any,
    ) -> None:
        report = BoxReport("LVISMetric", format_only, outfile_prefix, metric_items, classwise)
        reducer = Boxes(limit=MAX_DETS_PER_IMAGE)
        super().__init__(ann_file, reducer, partial(lvis_values, report=report), **shell)
        check_boxes_alone("LVISMetric", metric)


@METRICS.register_module()
class LVISFixedAPMetric(MetricShell):
    """LVIS fixed AP: the best 10,000 detections of each class over the whole data set.

    Memory is bounded by ``topk`` times the number of classes in every process.

    Args:
        ann_file: LVIS annotations.
        topk: detections kept per class.
        format_only: see :class:`BoxReport`, likewise outfile_prefix.
        **shell: of :class:`MetricShell`.
    Source: Dave et al. 2021, section 4.
    """

    default_prefix = "lvis_fixed_ap"
    refused = MMDET_SETTINGS

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        topk: int = MAX_DETS_PER_CLASS,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        **shell: Any,
    ) -> None:
        if topk < 1:
            raise ConfigError(f"LVISFixedAPMetric: topk must be at least 1, not {topk}")
        report = BoxReport("LVISFixedAPMetric", format_only, outfile_prefix)
        evaluation = partial(fixed_ap_values, topk=topk, report=report)
        super().__init__(ann_file, BestOfClass(topk), evaluation, **shell)


@METRICS.register_module()
class ProposalRecallMetric(MetricShell):
    """Average recall of the best boxes of an image, whatever their names.

    Args:
        ann_file: COCO or LVIS annotations.
        limits: boxes per image, ascending.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "proposals"

    def __init__(
        self, ann_file: str | None = None, *, limits: Sequence[int] = LIMITS, **shell: Any
    ) -> None:
        check_limits("ProposalRecallMetric: limits", limits)
        evaluation = partial(proposal_values, limits=tuple(limits))
        super().__init__(ann_file, Boxes(), evaluation, **shell)


def coco_values(
    found: Collected, limits: tuple[int, ...], iou_thresholds: np.ndarray, report: BoxReport
) -> Values:
    """COCO AP by mmdet's names."""
    truth = read_coco(found.ann_file)
    detections = _with_categories(found, found.categories(truth))

    def summarize() -> Values:
        curves = coco_curves(truth, detections, limits, iou_thresholds)
        values = {
            MMDET_NAMES.get(key, _recall_name(key, limits)): value
            for key, value in coco_summary(curves).items()
        }
        return report.choose(values, list(MMDET_NAMES.values()), truth, curves)

    return report.of(detections, summarize)


def lvis_values(found: Collected, report: BoxReport) -> Values:
    """LVIS AP."""
    truth = read_lvis(found.ann_file)
    detections = _with_categories(found, found.categories(truth.boxes))

    def summarize() -> Values:
        curves = lvis_curves(truth, cap_per_image(detections))
        values = lvis_summary(truth, curves, MAX_DETS_PER_IMAGE)
        return report.choose(values, _precisions(values), truth.boxes, curves)

    return report.of(detections, summarize)


def fixed_ap_values(found: Collected, topk: int, report: BoxReport) -> Values:
    """LVIS fixed AP."""
    truth: LVISGroundTruth = read_lvis(found.ann_file)
    detections = _with_categories(found, found.categories(truth.boxes))
    detections = cap_per_class(truth, detections, topk)

    def summarize() -> Values:
        values = lvis_summary(truth, lvis_curves(truth, detections), max_dets=-1)
        return {name: values[name] for name in _precisions(values)}

    return report.of(detections, summarize)


def proposal_values(found: Collected, limits: tuple[int, ...]) -> Values:
    """Average recall without categories."""
    images, labels, boxes, scores, _ = found.columns
    detections = DetectionTable(images, labels, boxes, scores)
    return proposal_recall(read_coco(found.ann_file), detections, limits)


def class_precisions(truth: GroundTruth, curves: PrecisionRecall) -> Values:
    """``NAME_precision`` of every class, NaN for a class without boxes, as mmdet names them."""
    values = curves.per_category()
    named = zip(truth.category_names, truth.category_ids.tolist(), strict=True)
    return {
        f"{name}_precision": values[category] if values[category] > -1 else float("nan")
        for name, category in named
    }


def write_coco_results(path: str, detections: DetectionTable) -> None:
    """Write detections as a COCO results file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    rows = zip(
        detections.image_ids.tolist(),
        detections.category_ids.tolist(),
        detections.xywh().tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    records = [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in rows
    ]
    Path(path).write_text(json.dumps(records), encoding="utf-8")


def check_limits(name: str, limits: Sequence[int]) -> None:
    """Raise a ConfigError unless the limits are ascending positive numbers."""
    if not limits or list(limits) != sorted(set(limits)) or min(limits) < 1:
        raise ConfigError(f"{name} must be ascending positive numbers, not {limits!r}")


def check_boxes_alone(name: str, metric: str | Sequence[str]) -> None:
    """Refuse other kinds of results than boxes, which mmdet's metrics also judge.

    Raises:
        ConfigError: ``metric`` is not ``bbox``.
    """
    if metric != "bbox" and list(metric) != ["bbox"]:
        raise ConfigError(f"{name}: metric must be 'bbox', not {metric!r}; boxes alone are judged")


def _with_categories(found: Collected, categories: np.ndarray) -> DetectionTable:
    images, labels, boxes, scores, _ = found.columns
    return DetectionTable(images, categories[labels], boxes, scores)


def _precisions(values: Mapping[str, float]) -> list[str]:
    return [name for name in values if name.startswith("AP")]


def _recall_name(key: str, limits: tuple[int, ...]) -> str:
    return key if "@" in key else f"AR_{key[-1]}@{limits[-1]}"
