"""Region encoders, and the connectors that map their features to a language model's width."""

from llmdet.models.regions.connector import VisualConnector
from llmdet.models.regions.grid_cells import GridCells
from llmdet.models.regions.object_queries import AllQueries, BestQueries, ObjectQueries

__all__ = ["AllQueries", "BestQueries", "GridCells", "ObjectQueries", "VisualConnector"]
