"""Whether a long training holds on to memory or files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook

#: A slope is a trend where it is this many times its standard error ...
_CERTAINTY = 4.0
#: ... and would raise the value by this share in the looks that were taken.
_SHARE = 0.02
#: Share of the looks that are left out: caches and allocators fill.
_WARM_UP = 0.25

MEMORY = "MB of the main process"
WORKERS = "MB of the workers"
FILES = "open files"
CHILDREN = "child processes"


class ResourceHook(Hook):
    """Notes every few iterations what this process and its data loader's workers hold.

    Args:
        every: iterations between two looks.
    """

    def __init__(self, every: int = 20) -> None:
        self.every = every
        self.looks: list[tuple[int, dict[str, float]]] = []

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Look."""
        if self.every_n_train_iters(runner, self.every):
            self.looks.append((runner.iter + 1, held()))


def held() -> dict[str, float]:
    """What this process and its children hold now; Linux alone tells."""
    children = _children()
    return {
        MEMORY: _own_mb(os.getpid()),
        WORKERS: sum(map(_own_mb, children)),
        FILES: len(os.listdir("/proc/self/fd")),
        CHILDREN: len(children),
    }


@dataclass(frozen=True)
class Trend:
    """How a quantity changed over a training."""

    name: str
    begin: float  # mean of the looks after the first tenth, up to a fifth
    end: float  # mean of the last tenth
    slope: float  # per 1,000 iterations, after the warm-up
    grows: bool


def trends(looks: Sequence[tuple[int, Mapping[str, float]]]) -> list[Trend]:
    """Fit a line to each quantity, after a warm-up."""
    iterations = np.array([iteration for iteration, _ in looks], np.float64)
    tenth = max(1, len(looks) // 10)
    found = []
    for name in looks[0][1]:
        values = np.array([held[name] for _, held in looks], np.float64)
        begin, end = values[tenth : 2 * tenth].mean(), values[-tenth:].mean()
        first = int(_WARM_UP * len(looks))
        slope, error = _line(iterations[first:], values[first:])
        span = iterations[-1] - iterations[first]
        grows = slope > _CERTAINTY * error and slope * span > _SHARE * max(begin, 1.0)
        found.append(Trend(name, float(begin), float(end), 1000 * slope, bool(grows)))
    return found


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the line of least squares, and its standard error."""
    centred = x - x.mean()
    spread = (centred**2).sum()
    slope = float((centred * y).sum() / spread)
    rest = y - y.mean() - slope * centred
    return slope, float(np.sqrt((rest**2).sum() / max(len(x) - 2, 1) / spread))


def _own_mb(process: int) -> float:
    """Memory of a process that is of no file; 0 where it has just ended.

    What it shares with workers that were forked from it counts too: pages cease to be shared when
    they are first written to, and a process does not grow by that.
    """
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    lines = [line for line in text.splitlines() if line.startswith(("Anonymous:", "Swap:"))]
    return sum(int(line.split()[1]) for line in lines) / 1024


def _children() -> list[int]:
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        found += map(int, path.read_text().split())
    return found
