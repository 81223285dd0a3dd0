"""mmengine metrics: they gather arrays across processes and call the functions beside them."""

from llmdet.evaluation.metrics.coco import CocoMetric
from llmdet.evaluation.metrics.dump import DumpPredictions
from llmdet.evaluation.metrics.lvis import LVISFixedAPMetric, LVISMetric

__all__ = ["CocoMetric", "DumpPredictions", "LVISFixedAPMetric", "LVISMetric"]
