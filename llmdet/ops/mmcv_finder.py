"""Answers ``import mmcv._ext`` where mmcv was installed without its compiled operators.

``mmcv.ops``, and with it ``mmdet.models``, cannot be imported without that extension. This
module imports nothing beyond the standard library, so that ``import llmdet`` stays quick; the
operators themselves are in :mod:`llmdet.ops.mmcv_ext` and are imported on demand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

EXTENSION = "mmcv._ext"


class _StandInLoader(Loader):
    """Fills the module ``mmcv._ext`` with the operators of :mod:`llmdet.ops.mmcv_ext`."""

    def exec_module(self, module: ModuleType) -> None:
        from llmdet.ops import mmcv_ext

        vars(module).update(mmcv_ext.OPERATORS)
        # Module-level __getattr__ (PEP 562) answers for every operator that has no stand-in.
        vars(module)["__getattr__"] = mmcv_ext.missing_operator


class StandInFinder(MetaPathFinder):
    """Finds ``mmcv._ext`` when nobody else does."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != EXTENSION:
            return None
        return ModuleSpec(fullname, _StandInLoader(), origin="llmdet.ops.mmcv_ext")


def install() -> None:
    """Append the finder to ``sys.meta_path``, once.

    Being the last of all finders, it is asked only when no compiled extension was found; a
    compiled mmcv therefore always wins.
    """
    if not any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandInFinder())


def is_stand_in(module: ModuleType) -> bool:
    """Whether a loaded ``mmcv._ext`` is ours (True) or a compiled one (False)."""
    spec = module.__spec__
    return spec is not None and isinstance(spec.loader, _StandInLoader)
