"""Schedules of the learning rate that follow the length of a run.

A config writes warm-up and milestones for one length of training and states it as
``schedule_length``: iterations, or epochs where ``train_cfg`` has ``max_epochs``. A run of another
length gets the same shape: every ``begin``, ``end``, ``milestones`` and ``T_max`` of
``param_scheduler`` is multiplied by the ratio of the two lengths.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.optim import _ParamScheduler

from llmdet.errors import ConfigError

logger = logging.getLogger(__name__)

#: Of a scheduler: what counts iterations or epochs.
_POSITIONS = ("begin", "end", "T_max", "milestones")


def fit_schedule(config: Config) -> str | None:
    """Stretch ``param_scheduler`` from ``schedule_length`` to the length of the run, in place.

    A schedule that ends elsewhere than at ``schedule_length`` was written by whoever uses the
    config, for a length of their own: it stays as it is, and so does one without
    ``schedule_length``.

    Returns:
        A line for the log that says what became of it, None where nothing did.

    Raises:
        ConfigError: ``schedule_length`` is no number above 0.
    """
    written_for = config.get("schedule_length")
    loop = config.get("train_cfg")
    if written_for is None or not isinstance(loop, Mapping):
        return None
    if isinstance(written_for, bool) or not isinstance(written_for, int | float):
        raise ConfigError(f"schedule_length is {written_for!r}; give the number of iterations")
    if not 0 < written_for < math.inf:
        raise ConfigError(f"schedule_length is {written_for!r}; give a number above 0")
    by_epoch = "max_epochs" in loop
    length = loop.get("max_epochs" if by_epoch else "max_iters")
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        return None  # check_settings says what is wrong with it
    parts = [
        part
        for part in _schedulers(config)
        if isinstance(part, Mapping) and bool(part.get("by_epoch", True)) == by_epoch
    ]
    if length == written_for or written_for not in [part.get("end") for part in parts]:
        return None
    for part in parts:
        _stretch(part, length / written_for)
    config.schedule_length = length
    unit = "epochs" if by_epoch else "iterations"
    described = "; ".join(map(_describe, parts))
    return f"the schedule of {written_for:,} {unit} is fitted to {length:,}: {described}"


def schedule_ends(schedulers: Any) -> list[int]:
    """Iterations at which schedulers end; none for those that are not built yet.

    Args:
        schedulers: of a runner; one, a list, or lists by the name of an optimizer.
    """
    if isinstance(schedulers, _ParamScheduler):
        return [schedulers.end]
    if isinstance(schedulers, Mapping):
        schedulers = list(schedulers.values())
    if not isinstance(schedulers, list | tuple):
        return []
    return [end for part in schedulers for end in schedule_ends(part)]


def warn_of_old_schedule(built: list[int], resumed: list[int]) -> None:
    """Log that a resumed run keeps the schedule of its checkpoint, where the config has another.

    Args:
        built: ends of the schedulers as the config says; empty where they were not built before.
        resumed: their ends once the checkpoint is read.
    """
    if built and built != resumed:
        logger.warning(
            "the schedule of the checkpoint goes on, which ends at iteration %s, and not that of "
            "the config, at %s; to begin that one anew give the checkpoint as load_from, without "
            "--resume",
            max(resumed, default=0),
            max(built, default=0),
        )


def _schedulers(config: Config) -> list[Any]:
    """Schedulers of the learning rate; one alone may stand without a list."""
    parts = config.get("param_scheduler") or []
    if isinstance(parts, Mapping):
        return [parts]
    return list(parts) if isinstance(parts, list | tuple) else []


def _stretch(part: Any, ratio: float) -> None:
    """Multiply the positions of a scheduler; none that was above 0 becomes 0.

    Only mmengine's ``convert_to_iter_based`` makes something of a part of an epoch, and not of
    milestones, which must be met exactly.
    """
    fractions = part.get("by_epoch", True) and part.get("convert_to_iter_based", False)

    def moved(position: float, *, whole: bool = not fractions) -> float:
        if position <= 0:
            return position
        return max(1, round(position * ratio)) if whole else position * ratio

    for name in _POSITIONS:
        value = part.get(name)
        if isinstance(value, list | tuple) and all(map(_is_finite, value)):
            part[name] = sorted({moved(position, whole=True) for position in value})
        elif _is_finite(value):
            part[name] = moved(value)
    begin, end = part.get("begin", 0), part.get("end")
    if _is_finite(begin) and _is_finite(end) and end <= begin:
        part["end"] = begin + 1  # a run of few iterations has no room for it


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _describe(part: Mapping[str, Any]) -> str:
    steps = f", steps at {part['milestones']}" if part.get("milestones") else ""
    return f"{part.get('type')} from {part.get('begin', 0)} to {part.get('end')}{steps}"
