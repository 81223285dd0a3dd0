"""mmengine metrics: one shell over reducers and the evaluation functions beside this folder."""

from llmdet.evaluation.metrics.described import D3Metric, OmniLabelMetric, OVDEvalMetric
from llmdet.evaluation.metrics.detection import (
    CocoMetric,
    LVISFixedAPMetric,
    LVISMetric,
    ProposalRecallMetric,
)
from llmdet.evaluation.metrics.dump import DumpPredictions
from llmdet.evaluation.metrics.grounding import Flickr30kMetric, GRefCOCOMetric, RefExpMetric
from llmdet.evaluation.metrics.language import (
    AnswerMetric,
    CaptionMetric,
    CocoClassificationMetric,
    GCGMetric,
    HumanRefMetric,
    POPEMetric,
    ReferringSegmentationMetric,
    RegionChoiceMetric,
    RegionClassificationMetric,
)
from llmdet.evaluation.metrics.retrieval import RetrievalMetric
from llmdet.evaluation.metrics.sets import BenchmarkEvaluator

__all__ = [
    "AnswerMetric",
    "BenchmarkEvaluator",
    "CaptionMetric",
    "CocoClassificationMetric",
    "CocoMetric",
    "D3Metric",
    "DumpPredictions",
    "Flickr30kMetric",
    "GCGMetric",
    "GRefCOCOMetric",
    "HumanRefMetric",
    "LVISFixedAPMetric",
    "LVISMetric",
    "OVDEvalMetric",
    "OmniLabelMetric",
    "POPEMetric",
    "ProposalRecallMetric",
    "RefExpMetric",
    "ReferringSegmentationMetric",
    "RegionChoiceMetric",
    "RegionClassificationMetric",
    "RetrievalMetric",
]
