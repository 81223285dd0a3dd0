"""Reading one's own training checkpoints back: weights, optimizer, schedules, log history.

mmengine falls back to executing a pickle when safe loading refuses it. Here safe loading has the
last word; foreign weights are the business of :mod:`llmdet.checkpoint`.
"""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    get_external_models,
    get_torch_safe_globals,
    get_torchvision_models,
)

from llmdet.checkpoint.remote import fetch, is_address
from llmdet.checkpoint.sharded import MANIFEST, check_shards
from llmdet.checkpoint.sums import DAMAGE, check_sums
from llmdet.errors import CheckpointError
from llmdet.utils.suggest import did_you_mean

logger = logging.getLogger(__name__)

#: The file of a work dir that names its newest checkpoint.
POINTER = "last_checkpoint"
_NUMBERED = re.compile(r"(?:iter|epoch)_(\d+)\.pth")

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
    if path.is_dir():
        raise CheckpointError(
            f"Checkpoint '{path}' is a folder without {MANIFEST}, so that no run of LLMDet wrote "
            "it. DeepSpeed's folders hold pickles, which are not read: make safetensors of one "
            "with its zero_to_fp32.py --safe_serialization, and start from them with load_from."
        )
    if not path.is_file():
        raise CheckpointError(f"Checkpoint '{path}' does not exist.")
    check_sums(path)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"Checkpoint '{path}' holds more than tensors and training state, and reading it would "
            f"execute code; refused ({_first_line(error)})."
        ) from error
    except DAMAGE as error:
        raise CheckpointError(
            f"Checkpoint '{path}' is damaged or incomplete: {_first_line(error)}"
        ) from error


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest whole checkpoint of a run, None before it has written one.

    Newer ones that are damaged are passed over with a warning.

    Raises:
        CheckpointError: the run has checkpoints and none of them is whole.
    """
    problems = []
    for path in _newest_first(Path(work_dir)):
        try:
            if path.is_file():
                check_sums(path)
            elif path.is_dir():
                check_shards(path)
            else:
                raise CheckpointError(f"'{path}' does not exist")
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            logger.warning("%s: passed over, '%s' is the newest whole one", problem, path)
        return path
    if problems:
        raise CheckpointError(
            f"'{work_dir}' has no checkpoint to continue from: {'; '.join(problems)}. Resume from "
            f"another file with --resume FILE, or remove {POINTER} to start anew."
        )
    return None


def _newest_first(work_dir: Path) -> list[Path]:
    """What the pointer names, its predecessors, and what was written after it."""
    numbered = {
        path: int(match[1])
        for path in work_dir.glob("*.pth")
        if (match := _NUMBERED.fullmatch(path.name))
    }
    pointer = work_dir / POINTER
    if pointer.is_file():
        newest = work_dir / pointer.read_text().strip()
        if not newest.exists() and (work_dir / newest.name).exists():
            newest = work_dir / newest.name  # of a run whose folder was moved
        match = _NUMBERED.fullmatch(newest.name)
        reached = int(match[1]) if match else -1
        written = pointer.stat().st_mtime_ns
        # Higher numbers that are older than the pointer are of another run in this folder.
        numbered = {
            path: number
            for path, number in numbered.items()
            if number <= reached or path.stat().st_mtime_ns >= written
        }
        numbered[newest] = reached
    return sorted(numbered, key=lambda path: numbered[path], reverse=True)


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
