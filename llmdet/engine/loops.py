"""Training loops whose iterations are the same whether or not a run was interrupted before them.

What is random in an iteration is a function of the run's seed, the rank and the iteration: its
batch, the transforms of each sample, and what the model draws. So nothing random needs to be saved,
and nothing depends on the number of workers, or on a validation in between.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterLoop
from torch.utils.data import DataLoader

from llmdet.errors import DataError
from llmdet.models.accumulation import accumulating
from llmdet.registry import LOOPS

from .accumulation import MicroBatches

#: Keep what samples and models draw apart.
_SAMPLE, _STEP = 1, 2
#: Of a data loader, beside its data set and its batches.
_KEPT = (
    "num_workers",
    "collate_fn",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "prefetch_factor",
    "persistent_workers",
    "multiprocessing_context",
)


@dataclass(frozen=True)
class RepeatableBatch:
    """Indices of a batch; going through them, a worker draws the same for a sample every time."""

    indices: tuple[int, ...]
    key: tuple[int, ...]  # what the random numbers of its samples follow from

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        for place, index in enumerate(self.indices):
            seed_everything((*self.key, place))
            yield index


class RepeatableBatches:
    """The batches of a run, from any one on; skipped ones are counted and never read.

    Args:
        batches: a batch sampler.
        seed: of the run.
        endless: whether to begin another epoch after each, within one iteration over this.
    """

    def __init__(self, batches: Any, seed: int, *, endless: bool) -> None:
        self.batches = batches
        self.sampler, self.batch_size = batches.sampler, getattr(batches, "batch_size", None)
        self.seed = seed
        self.endless = endless
        self.skip = 0  # batches that the next iteration over this leaves out

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[RepeatableBatch]:
        skip, self.skip = self.skip, 0
        rank, epoch, number = get_rank(), 0 if self.endless else _epoch(self.sampler), 0
        while True:
            before = number
            if self.endless and hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(epoch)
            for indices in self.batches:
                if number >= skip:
                    key = (self.seed, rank, _SAMPLE, epoch, number)
                    yield RepeatableBatch(tuple(indices), key)
                number += 1
            if not self.endless:
                return
            if number == before:
                raise DataError("the training data gives no batch: it has fewer images than one")
            epoch += 1


class RepeatableRandomness:
    """Of a training loop: batches and random numbers that follow from seed, rank and iteration."""

    runner: Any
    dataloader: DataLoader
    max_iters: int
    _iter: int
    _micro_batches: MicroBatches | None = None

    def make_repeatable(self, *, endless: bool) -> None:
        """Put the loop's data loader over repeatable batches."""
        loader = self.dataloader
        assert loader.batch_sampler is not None
        self.batches = RepeatableBatches(loader.batch_sampler, self.runner.seed, endless=endless)
        self.dataloader = DataLoader(
            loader.dataset,
            batch_sampler=self.batches,  # type: ignore[arg-type]
            **{name: getattr(loader, name) for name in _KEPT},
        )

    def follow_seed(self, before: int, seed: int) -> None:
        """Take the seed of the run that is resumed, where the config gives none."""
        self.batches.seed = seed
        if getattr(self.batches.sampler, "seed", None) == before:
            self.batches.sampler.seed = seed

    def run_iter(self, *args: Any) -> None:
        """Run one iteration."""
        seed_everything((self.runner.seed, get_rank(), _STEP, self._iter))
        totals = None if self._micro_batches is None else self._micro_batches.totals
        with accumulating(totals):
            super().run_iter(*args)  # type: ignore[misc]

    def in_steps(self, batches: Any) -> Any:
        """The same batches; those of one step of the optimizer are read together and counted.

        A model that divides by the number of boxes has a method ``count_step``.
        """
        counts = getattr(self.runner.optim_wrapper, "_accumulative_counts", 1)
        model = self.runner.model
        count = getattr(model.module if is_model_wrapper(model) else model, "count_step", None)
        if counts == 1 or count is None:
            return batches

        def size() -> int:
            return min(counts - self._iter % counts, self.max_iters - self._iter)

        self._micro_batches = MicroBatches(batches, size, count)
        return self._micro_batches


@LOOPS.register_module()
class IterBasedTrainLoop(RepeatableRandomness, MMEngineIterLoop):
    """mmengine's, with one endless row of batches, so that workers never start anew."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.make_repeatable(endless=True)
        self.dataloader_iterator = _Batches(self.dataloader, self.batches)

    def run(self) -> torch.nn.Module:
        """Train until the last iteration."""
        self.dataloader_iterator = self.in_steps(self.dataloader_iterator)
        return super().run()


@LOOPS.register_module()
class EpochBasedTrainLoop(RepeatableRandomness, MMEngineEpochLoop):
    """mmengine's, which continues within an epoch too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.make_repeatable(endless=False)

    def run_epoch(self) -> None:
        """Train what remains of an epoch."""
        first = self.batches.skip = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for number, batch in enumerate(self.in_steps(iter(self.dataloader)), first):
            self.run_iter(number, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


class _Batches:
    """What mmengine's loop takes batches from; workers start at the first one that is needed."""

    def __init__(self, loader: DataLoader, batches: RepeatableBatches) -> None:
        self._loader, self._batches = loader, batches
        self._iterator: Iterator[Any] | None = None

    def skip_iter(self, number: int) -> None:
        """Leave out what was trained before."""
        self._batches.skip = number

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._loader)
        return next(self._iterator)


def seed_everything(key: tuple[int, ...]) -> None:
    """Seed Python's, NumPy's and PyTorch's random numbers of this process.

    Args:
        key: non-negative numbers; each other key gives other, unrelated numbers.
    """
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    seed = int(words[2]) << 31 | int(words[3]) >> 1
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _epoch(sampler: Any) -> int:
    return getattr(sampler, "epoch", 0)
