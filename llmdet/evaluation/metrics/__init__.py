"""mmengine metrics: they gather arrays across processes and call the functions beside them."""

from llmdet.evaluation.metrics.coco import CocoMetric
from llmdet.evaluation.metrics.described import D3Metric, OmniLabelMetric, OVDEvalMetric
from llmdet.evaluation.metrics.dump import DumpPredictions
from llmdet.evaluation.metrics.grounding import Flickr30kMetric, GRefCOCOMetric, RefExpMetric
from llmdet.evaluation.metrics.lvis import LVISFixedAPMetric, LVISMetric
from llmdet.evaluation.metrics.sets import BenchmarkEvaluator

__all__ = [
    "BenchmarkEvaluator",
    "CocoMetric",
    "D3Metric",
    "DumpPredictions",
    "Flickr30kMetric",
    "GRefCOCOMetric",
    "LVISFixedAPMetric",
    "LVISMetric",
    "OVDEvalMetric",
    "OmniLabelMetric",
    "RefExpMetric",
]
