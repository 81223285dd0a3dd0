"""Conversations about regions, made of annotations: what ``--to regions`` writes."""

from llmdet.datasets.regions.settings import RegionSettings
from llmdet.datasets.regions.writing import write_regions

__all__ = ["RegionSettings", "write_regions"]
