"""Reading one's own training checkpoints back: weights, optimizer, schedules, log history.

mmengine falls back to executing a pickle when safe loading refuses it. Here safe loading has the
last word; foreign weights are the business of :mod:`llmdet.checkpoint`.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    find_latest_checkpoint,
    get_external_models,
    get_torch_safe_globals,
    get_torchvision_models,
)

from llmdet.checkpoint.remote import fetch, is_address
from llmdet.errors import CheckpointError
from llmdet.utils.suggest import did_you_mean

#: Methods of its own that every pickled HistoryBuffer refers to.
_STATISTICS = ("min", "max", "current", "mean")
_NUMPY_TYPES = ("bool", "int32", "float16", "float32")


def read_training_state(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint that mmengine's runner wrote, without executing anything.

    Args:
        path: the ``.pth`` file, or its address in the web.
        map_location: as in :func:`torch.load`.

    Returns:
        The dictionary with ``state_dict``, ``optimizer``, ``param_schedulers``, ``message_hub``
        and ``meta``, as far as the file has them.

    Raises:
        CheckpointError: the file is missing or damaged, or holds objects beyond tensors, plain
            containers and mmengine's log history.
    """
    path = fetch(str(path)) if is_address(path) else Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"Checkpoint '{path}' does not exist.")
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Checkpoint '{path}' holds more than tensors and training state, and reading it would "
            f"execute code; refused ({_first_line(error)})."
        ) from error
    except (EOFError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"Checkpoint '{path}' is damaged or incomplete: {_first_line(error)}"
        ) from error


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest checkpoint of a run, None before it has written one.

    Raises:
        CheckpointError: the run's folder names a checkpoint that is gone.
    """
    if not (Path(work_dir) / "last_checkpoint").is_file():
        return None
    path = Path(find_latest_checkpoint(str(work_dir)))
    if not path.is_file():
        raise CheckpointError(
            f"'{work_dir}/last_checkpoint' names '{path}', which does not exist: resume from "
            "another file with --resume FILE, or remove last_checkpoint to start anew."
        )
    return path


def _safe_globals() -> list[Any]:
    """What a training checkpoint may refer to, with ``getattr`` reduced to what it is used for."""
    allowed = [item for item in get_torch_safe_globals() if item is not getattr]
    allowed += [type(np.dtype(name)) for name in _NUMPY_TYPES]
    return [*allowed, (_statistic, "builtins.getattr")]


def _statistic(owner: Any, name: Any) -> Any:
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f"it asks for the attribute {name!r} of {owner!r}")
    return getattr(HistoryBuffer, name)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _read_named(name: str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read what ``torchvision://NAME`` or ``open-mmlab://NAME`` stands for."""
    scheme, _, model = name.partition("://")
    known = get_torchvision_models() if scheme in _TORCHVISION else get_external_models()
    if model not in known:
        raise CheckpointError(f"'{name}' names no weights; {did_you_mean(model, known)}")
    return read_training_state(known[model], map_location)


def _refuse(name: str, map_location: Any = "cpu") -> dict[str, Any]:
    raise CheckpointError(
        f"'{name}' is at a place from which weights cannot be read safely: download the file and "
        "give its path, or give an https address"
    )


_TORCHVISION = ("torchvision", "modelzoo")

# All of mmengine's schemes end in a loader that executes pickles when safe reading refuses them.
# These replace them, for `init_cfg` and hooks too; the empty prefix is that of local files.
for _scheme in list(CheckpointLoader._schemes):
    CheckpointLoader.register_scheme(_scheme, loader=_refuse, force=True)
CheckpointLoader.register_scheme(
    [f"{_scheme}://" for _scheme in (*_TORCHVISION, "open-mmlab", "openmmlab")],
    loader=_read_named,
    force=True,
)
CheckpointLoader.register_scheme(["http://", "https://", ""], read_training_state, force=True)
