"""Boxes that a model chose among candidates, as an mmengine metric."""

from pathlib import Path
from typing import Any

from llmdet.evaluation.detections import DetectionTable
from llmdet.evaluation.ground_truth import LVISGroundTruth
from llmdet.evaluation.metrics.reducers import Boxes
from llmdet.evaluation.metrics.shell import Collected, MetricShell
from llmdet.evaluation.region_runners import read_objects
from llmdet.evaluation.retrieval import retrieval_scores
from llmdet.registry import METRICS


@METRICS.register_module()
class RetrievalMetric(MetricShell):
    """Precision and recall of the boxes that a model chose, at an overlap of 0.5.

    Args:
        ann_file: COCO or LVIS annotations.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "retrieval"

    def __init__(self, ann_file: str | None = None, **shell: Any) -> None:
        super().__init__(ann_file, Boxes(), retrieval_values, **shell)


def retrieval_values(found: Collected) -> dict[str, float]:
    """Precision and recall of what was chosen."""
    truth = read_objects(Path(found.ann_file))
    annotated = truth.boxes if isinstance(truth, LVISGroundTruth) else truth
    images, labels, boxes, scores, _ = found.columns
    categories = found.categories(annotated)[labels]
    return dict(retrieval_scores(truth, DetectionTable(images, categories, boxes, scores)))
