"""Checkpoints of models that are spread over processes: one file, or a folder of parts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.optim import OptimWrapper
from torch import Tensor

from llmdet.checkpoint.frozen import leave_out_frozen
from llmdet.checkpoint.sharded import (
    OPTIMIZER,
    STATE,
    WEIGHTS,
    check_shards,
    fill_from_shards,
    read_shards,
    seal,
    sizes_in_shards,
    write_shards,
)
from llmdet.engine.checkpoint import read_training_state
from llmdet.engine.saving import checkpoint_file, raising_for_full_disks
from llmdet.errors import CheckpointError
from llmdet.models.wrappers import bare
from llmdet.utils.whole_files import TEMPORARY, flush


def save_spread(
    runner: Any,
    path: Path,
    *,
    save_optimizer: bool = True,
    save_param_scheduler: bool = True,
    meta: dict[str, Any] | None = None,
    by_epoch: bool = True,
) -> None:
    """Write the checkpoint of a runner with a strategy; all processes call this together.

    Args:
        runner: with a model that is spread.
        path: of the file, or of the folder where the strategy writes parts.
        save_optimizer, save_param_scheduler, meta, by_epoch: as mmengine's runner takes them.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written.
    """
    state = _state(runner, meta, by_epoch)
    if save_optimizer:
        state["optimizer"] = runner.optim_wrapper.state_dict()
    if save_param_scheduler and runner.param_schedulers is not None:
        state["param_schedulers"] = [each.state_dict() for each in runner.param_schedulers]
    leave_out_frozen(state, bare(runner.model))
    if runner.strategy.checkpoints == "sharded":
        _save_sharded(runner, path, state)
    else:
        _save_consolidated(runner, path, state)


def read_sharded(folder: Path, *, weights: bool = True) -> dict[str, Any]:
    """A training state of several processes; the optimizer's without its large tensors.

    Args:
        folder: that they wrote.
        weights: with False ``state_dict`` is empty.
    """
    if is_main_process():
        check_shards(folder)
    state = read_training_state(folder / STATE)
    state["state_dict"] = read_shards(folder, WEIGHTS) if weights else {}
    return state


def fill_optimizer(folder: Path, state: Mapping[str, Any], wrapper: OptimWrapper) -> dict[str, Any]:
    """The optimizer's part of a state of :func:`read_sharded`, with this process's tensors.

    Raises:
        CheckpointError: they were another model's.
    """
    parameters = [p for group in wrapper.optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Any]] = {
        int(number): dict(entry) for number, entry in state["state"].items()
    }
    wanted: dict[str, Tensor] = {}
    for key, size in sizes_in_shards(folder, OPTIMIZER).items():
        number, _, name = key.removeprefix(OPTIMIZER).partition(".")
        index = int(number)
        if index >= len(parameters) or parameters[index].shape != size:
            raise CheckpointError(
                f"the optimizer of '{folder}' does not fit this config: start from its weights "
                "with load_from, without --resume"
            )
        wanted[key] = entries.setdefault(index, {})[name] = torch.empty_like(parameters[index])
    fill_from_shards(folder, wanted)
    return {**state, "state": entries}


def _state(runner: Any, meta: dict[str, Any] | None, by_epoch: bool) -> dict[str, Any]:
    """What of a checkpoint is the same for all ways of writing it."""
    reached = {"epoch": runner.epoch + by_epoch, "iter": runner.iter + (not by_epoch)}
    meta = {**reached, **(meta or {})}
    meta.update(
        cfg=runner.cfg.pretty_text,
        seed=runner.seed,
        experiment_name=runner.experiment_name,
        time=time.strftime("%Y%m%d_%H%M%S"),
        mmengine_version=mmengine.__version__,
    )
    if hasattr(runner.train_dataloader.dataset, "metainfo"):
        meta["dataset_meta"] = runner.train_dataloader.dataset.metainfo
    return {
        "meta": meta,
        # Parameters themselves: what a strategy keeps of them says where their other parts are.
        "state_dict": bare(runner.model).state_dict(keep_vars=True),
        "message_hub": runner.message_hub.state_dict(),
    }


def _save_consolidated(runner: Any, path: Path, state: dict[str, Any]) -> None:
    for entry in ("state_dict", "optimizer"):
        if entry in state:
            state[entry] = runner.strategy.gather(state[entry])
    if not is_main_process():
        return
    runner.call_hook("before_save_checkpoint", checkpoint=state)
    with checkpoint_file(path) as partial:
        torch.save(state, partial)


def _save_sharded(runner: Any, folder: Path, state: dict[str, Any]) -> None:
    spread = state["state_dict"]
    tensors = {f"{WEIGHTS}{name}": value.detach() for name, value in spread.items()}
    optimizer = state.get("optimizer")
    if optimizer is not None:
        large = _split(optimizer["state"], lambda value: value.ndim > 0)
        tensors |= {f"{OPTIMIZER}{key}": value for key, value in large.items()}
        few = {
            number: {k: v for k, v in entry.items() if f"{number}.{k}" not in large}
            for number, entry in optimizer["state"].items()
        }
        state["optimizer"] = {**optimizer, "state": few}
    # Hooks look at this process's part.
    state["state_dict"] = {name: _own(value) for name, value in spread.items()}
    runner.call_hook("before_save_checkpoint", checkpoint=state)
    del state["state_dict"]
    with _folder_written_whole(folder) as partial:
        write_shards(partial, tensors)
        if is_main_process():
            torch.save(state, partial / STATE)


@contextmanager
def _folder_written_whole(folder: Path) -> Iterator[Path]:
    """Give all processes a folder to write to, which becomes ``folder`` when all have written.

    Where the disk is full nothing is left behind.
    """
    partial = folder.with_name(folder.name + TEMPORARY)
    try:
        with raising_for_full_disks(folder):
            if is_main_process():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            barrier()
            yield partial
            barrier()
            if is_main_process():
                seal(partial)
                for path in partial.iterdir():
                    flush(path)
                _replace(partial, folder)
            barrier()
    except CheckpointError:
        if is_main_process():
            shutil.rmtree(partial, ignore_errors=True)
        raise


def _replace(partial: Path, folder: Path) -> None:
    """Give a folder its name; what had it before is removed when the new one stands."""
    old = folder.with_name(f"{folder.name}.old{TEMPORARY}")
    if folder.is_dir():
        folder.rename(old)
    elif folder.exists():
        folder.unlink()
    partial.rename(folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _split(entries: Mapping[int, Any], chosen: Callable[[Tensor], bool]) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": value
        for number, entry in entries.items()
        for name, value in entry.items()
        if isinstance(value, Tensor) and chosen(value)
    }


def _own(tensor: Tensor) -> Tensor:
    part = getattr(tensor, "to_local", None)
    return (tensor if part is None else part()).detach()
