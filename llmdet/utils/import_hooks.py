"""What other packages do at their import that no program of ours wants.

mmdet's data sets print that they found no OneDL, whatever the level of its logger. mmengine asks
transformers for an optimizer, and with it for PEFT, which our registry does when a config names
an optimizer; it asks for DeepSpeed, which says on stdout what device it found, and which our
strategies import when a config names one. PyTorch's optimizers of remote parameters, which
mmengine imports with another one, compile themselves. Two modules of mmdet that can draw bring
matplotlib's pyplot, and others that match boxes while training bring scipy's optimisation. Each of
these but the first takes a quarter of a second at every start.

This module imports nothing beyond the standard library, so that ``import llmdet`` stays quick.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def _silent() -> AbstractContextManager[Any]:
    """Drop what is printed."""
    return contextlib.redirect_stdout(io.StringIO())


@contextlib.contextmanager
def _without(package: str) -> Iterator[None]:
    """Have the import of a package fail, as where it is not installed."""
    missing = object()
    module: Any = sys.modules.get(package, missing)
    sys.modules[package] = None  # type: ignore[assignment]  # how the language says so
    try:
        yield
    finally:
        del sys.modules[package]
        if module is not missing:
            sys.modules[package] = module


@contextlib.contextmanager
def _without_scripting() -> Iterator[None]:
    """Leave classes that are marked for TorchScript as they are written."""
    from torch.jit import _state

    enabled = _state._enabled.enabled
    _state.disable()
    try:
        yield
    finally:
        if enabled:
            _state.enable()


def _when_used(name: str) -> Callable[[], AbstractContextManager[Any]]:
    """A context in which ``import NAME`` gives a module that imports the real one when it is used.

    What is taken out of it at once, as by ``from NAME import function``, is taken for a function,
    and imports the module when it is called.
    """

    def attribute(what: str) -> Any:
        if what.startswith("__"):
            raise AttributeError(what)
        if sys.modules.get(name) is not late:
            return getattr(importlib.import_module(name), what)
        return lambda *args, **kwargs: getattr(importlib.import_module(name), what)(*args, **kwargs)

    late = ModuleType(name)
    vars(late)["__getattr__"] = attribute  # module-level __getattr__ (PEP 562)

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        if name in sys.modules:
            yield
            return
        sys.modules[name] = late
        try:
            yield
        finally:
            del sys.modules[name]

    return context


#: Of transformers, all of which are imported with any of its models.
_DETR_LOSSES = (
    "deformable_detr",
    "for_object_detection",
    "grounding_dino",
    "lw_detr",
    "rf_detr",
    "rt_detr",
)
#: Module -> the context in which it is executed.
_CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "mmdet.datasets": _silent,
    "mmdet.datasets.transforms": _silent,
    "mmdet.models.dense_heads.clr_head.clr_head": _when_used("matplotlib.pyplot"),
    "mmdet.models.dense_heads.clr_head.lane": _when_used("scipy.interpolate"),
    "mmdet.models.task_modules.assigners.hungarian_assigner": _when_used("scipy.optimize"),
    "mmdet.models.task_modules.assigners.topk_hungarian_assigner": _when_used("scipy.optimize"),
    "mmdet.models.task_modules.tracking.aflink": _when_used("scipy.optimize"),
    "mmdet.models.task_modules.tracking.kalman_filter": _when_used("scipy.linalg"),
    "mmdet.models.trackers.sort_tracker": _when_used("scipy.optimize"),
    "mmdet.utils.mot_error_visualize": _when_used("matplotlib.pyplot"),
    "mmengine._strategy.deepspeed": partial(_without, "deepspeed"),
    "mmengine.optim.optimizer.builder": partial(_without, "transformers"),
    "torch.distributed.optim": _without_scripting,
    **{f"transformers.loss.loss_{name}": _when_used("scipy.optimize") for name in _DETR_LOSSES},
}


class _ContextLoader(Loader):
    """Executes a module as its own loader does, in a context."""

    def __init__(self, loader: Loader, context: Callable[[], AbstractContextManager[Any]]) -> None:
        self.loader = loader
        self.context = context

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with self.context():
            self.loader.exec_module(module)


class _HookFinder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        context = _CONTEXTS.get(fullname)
        if context is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _ContextLoader(spec.loader, context)
        return spec


def install() -> None:
    """Put the finder before all others, once."""
    if not any(isinstance(finder, _HookFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _HookFinder())
