"""Conversations about candidate objects, made of annotations: what ``--to objects`` writes."""

from llmdet.datasets.retrieval.settings import RetrievalSettings
from llmdet.datasets.retrieval.writing import write_retrieval

__all__ = ["RetrievalSettings", "write_retrieval"]
