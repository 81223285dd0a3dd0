"""Trainings of region language models whose towers are frozen: each image is looked at once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch.optim.lr_scheduler import LambdaLR

from llmdet.checkpoint.frozen import leave_out_frozen
from llmdet.datasets.rows import read_row
from llmdet.datasets.sample import GroundingSample
from llmdet.engine.optimizer import GroupedOptimWrapperConstructor
from llmdet.models.vision.views import TowerOutput
from llmdet.testing.kept import join

logger = logging.getLogger(__name__)

_WARMUP = 100  # steps
_LOGGED = 25  # steps

Transform = Callable[[dict[str, Any]], dict[str, Any]]


class Pool:
    """Rows of conversations, and what frozen towers saw of their images.

    Args:
        model: reads them.
        seen: tower -> file name -> what it saw, of every image.
        rows: of docs/data.md; those whose images were not seen are left out.
        transform: of a pipeline, which each row goes through once.
    """

    def __init__(
        self,
        model: Any,
        seen: Mapping[str, Mapping[str, Any]],
        rows: Iterable[Mapping[str, Any]],
        transform: Transform | None = None,
    ) -> None:
        self.model, self.seen, self.transform = model, seen, transform
        known = set.intersection(*(set(each) for each in seen.values()))
        self.rows = [row for row in rows if row["filename"] in known]
        self._samples: dict[int, DetDataSample] = {}

    def sample(self, row: Mapping[str, Any]) -> DetDataSample:
        """A row as what is learned; it is read and tokenised once."""
        if id(row) not in self._samples:
            sample = sample_of(row, self.transform)
            (said,) = sample.grounding.conversations
            known = replace(said, tokens=self.model.conversations(said))
            sample.grounding = replace(sample.grounding, conversations=(known,))
            self._samples[id(row)] = sample
        return self._samples[id(row)]

    def look(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, TowerOutput]:
        """What the towers saw of the images of rows."""
        return {
            name: join([seen[row["filename"]] for row in rows]) for name, seen in self.seen.items()
        }


def sample_of(row: Mapping[str, Any], transform: Transform | None = None) -> DetDataSample:
    """A row with its conversation and regions, as a pipeline packs it."""
    read = read_row(row, str(row["filename"]))
    assert read.conversation is not None
    results: dict[str, Any] = {"regions": read.regions, "conversations": (read.conversation,)}
    if transform is not None:
        results = transform(results | {"proposals": read.proposals})
    sample = DetDataSample()
    sample.grounding = GroundingSample(
        regions=results["regions"], conversations=results["conversations"]
    )
    return sample


@dataclass(frozen=True)
class Training:
    """How long and on what."""

    tasks: Mapping[str, float]  # task of rows -> its share
    steps: int
    batch_size: int  # conversations
    seed: int  # of their order


def train(model: Any, pool: Pool, optim_wrapper: Mapping[str, Any], training: Training) -> None:
    """Train with warm-up and cosine, on what frozen towers have seen.

    Args:
        model: a ``RegionLMM``.
        pool: what it learns from.
        optim_wrapper: of its config.
        training: how long and on what.
    """
    settings = dict(optim_wrapper)
    paramwise = settings.pop("paramwise_cfg", None)
    optimizer = GroupedOptimWrapperConstructor(settings, paramwise)(model)
    steps, tasks = training.steps, training.tasks
    schedule = LambdaLR(optimizer.optimizer, partial(learning_rate, steps=steps))
    by_task = {task: [row for row in pool.rows if row["task"] == task] for task in tasks}
    rng = np.random.default_rng(training.seed)
    shares = np.array(list(tasks.values())) / sum(tasks.values())
    model.train()
    for step in range(1, steps + 1):
        drawn = rng.choice(list(tasks), training.batch_size, p=shares)
        batch = [by_task[task][int(rng.integers(len(by_task[task])))] for task in drawn]
        losses = model.loss_of(pool.look(batch), [pool.sample(row) for row in batch])
        optimizer.update_params(sum(losses.values()))
        schedule.step()
        if step % _LOGGED == 0:
            said = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
            logger.info("step %d of %d: %s", step, steps, said)
    model.eval()


def save_trained(model: Any, path: Path) -> None:
    """Save the weights of a model, without those of frozen parts that a published model has."""
    checkpoint = {"meta": {"processes": 1}, "state_dict": dict(model.state_dict())}
    leave_out_frozen(checkpoint, model)
    torch.save(checkpoint, path)


def learning_rate(step: int, steps: int, level: float = 0.0) -> float:
    """A step's share of the highest rate: warm-up, then cosine almost to zero.

    Args:
        step: of training.
        steps: all of them.
        level: share of them, warm-up included, before the rate falls.
    """
    warmup = min(_WARMUP, steps // 10 + 1)
    falls = max(warmup, level * steps)
    rest = max(0.0, (step - falls) / max(1, steps - falls))
    return min(1.0, (step + 1) / warmup) * (0.51 + 0.49 * math.cos(math.pi * rest))
