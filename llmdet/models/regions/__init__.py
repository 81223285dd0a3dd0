"""Region encoders, and the connectors that map their features to a language model's width."""

from llmdet.models.regions.any_region import AnyRegion
from llmdet.models.regions.average_grid import AverageGrid
from llmdet.models.regions.connector import MLPConnector, VisualConnector
from llmdet.models.regions.fused_roi_align import FusedRoIAlign
from llmdet.models.regions.grid_cells import GridCells
from llmdet.models.regions.mask_pool import MaskPool
from llmdet.models.regions.object_queries import AllQueries, BestQueries, ObjectQueries
from llmdet.models.regions.roi_align import RoIAlign

__all__ = [
    "AllQueries",
    "AnyRegion",
    "AverageGrid",
    "BestQueries",
    "FusedRoIAlign",
    "GridCells",
    "MLPConnector",
    "MaskPool",
    "ObjectQueries",
    "RoIAlign",
    "VisualConnector",
]
