"""LLMDet: open-vocabulary detection taught by a language model."""

from typing import TYPE_CHECKING, Any

from llmdet.ops import mmcv_finder
from llmdet.utils import import_hooks

if TYPE_CHECKING:
    from llmdet.apis import Detector, Results, Tiles

__all__ = ["Detector", "Results", "Tiles"]
__version__ = "0.1.0"

mmcv_finder.install()
import_hooks.install()


def __getattr__(name: str) -> Any:
    """The detector, imported when it is first used (PEP 562)."""
    if name in __all__:
        from llmdet import apis

        return getattr(apis, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
