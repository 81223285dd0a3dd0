"""What other packages do at their import that no program of ours wants.

mmdet's data sets print that they found no OneDL, whatever the level of its logger. mmengine asks
transformers for an optimizer, and with it for PEFT, which our registry does when a config names
an optimizer; it asks for DeepSpeed, which says on stdout what device it found, and which our
strategies import when a config names one. PyTorch's optimizers of remote parameters, which
mmengine imports with another one, compile themselves. Two modules of mmdet that can draw bring
matplotlib's pyplot, and others that match boxes while training bring scipy's optimisation. Modules
of torchvision and transformers bring PyTorch's compiler and SymPy, to mark functions for it; the
client of the hub brings trio, and accelerate brings boto3, where they are installed. Each of these
but the first takes a tenth of a second or more at every start, and the compiler a whole one.

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
        # Whoever asks whether a package is installed learns it from its spec.
        late.__spec__ = None if "." in name else PathFinder.find_spec(name)
        if name in sys.modules or ("." not in name and late.__spec__ is None):
            yield
            return
        sys.modules[name] = late
        try:
            yield
        finally:
            del sys.modules[name]

    return context


#: What PyTorch's compiler is told of functions before it is imported: how it is told, the function.
_MARKS: list[tuple[str, Callable[..., Any]]] = []


def _mark(how: str, function: Callable[..., Any]) -> Callable[..., Any]:
    _MARKS.append((how, function))
    return function


@contextlib.contextmanager
def _compiler_told_later() -> Iterator[None]:
    """Keep what ``@torch.compiler.allow_in_graph`` and its like say, until there is a compiler."""
    import torch

    compiler: Any = torch.compiler
    if "_dynamo" in vars(torch):
        yield
        return
    late = ModuleType("torch._dynamo")
    vars(late)["__getattr__"] = lambda how: partial(_mark, how)
    kept = compiler.allow_in_graph, compiler.disable
    vars(torch)["_dynamo"] = late
    compiler.allow_in_graph = partial(_mark, "allow_in_graph")
    compiler.disable = torch._disable_dynamo  # imports the compiler at the first call
    try:
        yield
    finally:
        compiler.allow_in_graph, compiler.disable = kept
        if vars(torch).get("_dynamo") is late:
            del vars(torch)["_dynamo"]


@contextlib.contextmanager
def _tell_compiler() -> Iterator[None]:
    """Tell the compiler, once it is imported, what was kept for it."""
    import torch

    vars(torch).pop("_dynamo", None)  # what stands for it
    yield
    while _MARKS:
        how, function = _MARKS.pop()
        getattr(sys.modules["torch._dynamo"], how)(function)


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
    "accelerate.commands.config.sagemaker": _when_used("boto3"),
    "httpcore._backends.trio": _when_used("trio"),
    "httpcore._synchronization": _when_used("trio"),
    "mmdet.datasets": _silent,
    "mmdet.datasets.transforms": _silent,
    "mmdet.models.dense_heads.clr_head.clr_head": _when_used("matplotlib.pyplot"),
    "mmdet.models.dense_heads.clr_head.lane": _when_used("scipy.interpolate"),
    "mmdet.models.task_modules.assigners.hungarian_assigner": _when_used("scipy.optimize"),
    "mmdet.models.task_modules.assigners.topk_hungarian_assigner": _when_used("scipy.optimize"),
    "mmdet.models.task_modules.tracking.aflink": _when_used("scipy.optimize"),
    "mmdet.models.task_modules.tracking.kalman_filter": _when_used("scipy.linalg"),
    "mmdet.models.trackers.sort_tracker": _when_used("scipy.optimize"),
    "mmdet.utils": _when_used("mmdet.utils.mot_error_visualize"),
    "mmengine._strategy.deepspeed": partial(_without, "deepspeed"),
    "mmengine.optim.optimizer.builder": partial(_without, "transformers"),
    "torch._dynamo": _tell_compiler,
    "torch.distributed.optim": _without_scripting,
    "torch.distributed.tensor._ops._tensor_ops": _when_used(
        "torch.fx.experimental.symbolic_shapes"
    ),
    "torchvision.ops.roi_align": _when_used("torch._dynamo.utils"),
    "transformers.masking_utils": _when_used("torch._dynamo._trace_wrapped_higher_order_op"),
    "transformers.modeling_utils": _compiler_told_later,
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
