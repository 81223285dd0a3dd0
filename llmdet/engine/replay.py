"""Batches that a run diverged on, kept as files that hold no program, and looked at again."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from llmdet.errors import DataError

from .saving import checkpoint_file

#: Folder of a work dir that has these files.
FOLDER = "diverged"


@dataclass(frozen=True)
class Replay:
    """What a batch gives when it is trained on again."""

    losses: dict[str, float]
    first: str | None  # the part of the model that first gave what is no finite number
    gradients: tuple[str, ...]  # weights whose gradients are no finite numbers


def save_batch(work_dir: str, iteration: int, rank: int, batch: Any) -> Path:
    """Keep a batch as the data loader gave it; returns its file."""
    folder = Path(work_dir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"iter_{iteration}_rank_{rank}.pth"
    with checkpoint_file(path) as partial:
        torch.save({"iteration": iteration, "rank": rank, "batch": batch}, partial)
    return path


def read_batch(path: str | Path) -> Any:
    """Read what :func:`save_batch` wrote, without executing anything.

    Raises:
        DataError: there is no such file, or it holds more than data samples.
    """
    try:
        with torch.serialization.safe_globals(_plain_data()):
            return torch.load(path, map_location="cpu", weights_only=True)["batch"]
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, KeyError, TypeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise DataError(f"'{path}' is no batch that a run has saved: {first}") from error


def replay(model: Any, batch: Any) -> Replay:
    """Train on a batch without changing weights, and find where numbers end.

    Args:
        model: with ``data_preprocessor`` and the losses of ``mode="loss"``.
        batch: as a data loader gives it.
    """
    model.train()
    with _watching(model) as seen:
        data = model.data_preprocessor(batch, True)
        losses = model(**data, mode="loss") if isinstance(data, Mapping) else model(*data)
    total, logged = model.parse_losses(losses)
    total.backward()
    wrong = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    values = {name: float(value) for name, value in logged.items()}
    return Replay(values, next(iter(seen), None), tuple(wrong))


@contextmanager
def _watching(model: nn.Module) -> Iterator[list[str]]:
    """Names of parts that give NaN or positive infinity, in the order in which they run.

    Logits of padded text are minus infinity on purpose.
    """
    seen: list[str] = []

    def hook(name: str) -> Any:
        def look(module: nn.Module, given: Any, result: Any) -> None:
            floats = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            floats = [leaf for leaf in floats if leaf.is_floating_point()]
            if any((leaf.isnan() | leaf.isposinf()).any() for leaf in floats):
                seen.append(name)

        return look

    hooks = [part.register_forward_hook(hook(name)) for name, part in model.named_modules() if name]
    try:
        yield seen
    finally:
        for handle in hooks:
            handle.remove()


def _plain_data() -> list[Any]:
    """The classes of which data samples consist; none of them does anything when it is made."""
    import collections

    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmengine.structures import InstanceData
    from numpy._core.multiarray import _reconstruct, scalar

    from llmdet.datasets import sample
    from llmdet.models.outputs.base import Output
    from llmdet.prompts import conversation, objects, types

    ours = [
        value
        for module in (sample, conversation, objects, types)
        for value in vars(module).values()
        if hasattr(value, "__dataclass_fields__")
    ]
    dtypes = [type(np.dtype(name)) for name in ("bool", "int32", "int64", "float32", "float64")]
    arrays = [np.ndarray, np.dtype, _reconstruct, scalar, *dtypes]
    return [
        DetDataSample,
        InstanceData,
        HorizontalBoxes,
        Output.write,
        str,
        bytes,
        collections.OrderedDict,
        *arrays,
        *ours,
    ]
