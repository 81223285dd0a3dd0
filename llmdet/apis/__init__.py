"""What programs call: the detector and its results, and questions about regions.

They are imported when they are first used: whoever only checks inputs or prompts does not wait
for mmdet.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmdet.apis.detector import Detector
    from llmdet.apis.region_chat import RegionChat
    from llmdet.apis.results import Results
    from llmdet.apis.tiles import Tiles

__all__ = ["Detector", "RegionChat", "Results", "Tiles"]

_PLACES = {
    "Detector": "llmdet.apis.detector",
    "RegionChat": "llmdet.apis.region_chat",
    "Results": "llmdet.apis.results",
    "Tiles": "llmdet.apis.tiles",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
