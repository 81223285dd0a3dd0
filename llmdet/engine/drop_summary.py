"""Log once per epoch what the training data lost on its way to the model."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from llmdet.datasets.ledger import check_permitted, ledgers_of, over_ranks
from llmdet.registry import HOOKS


@HOOKS.register_module()
class DropSummaryHook(Hook):
    """Log how many boxes, phrases, captions and rows were left out, by cause, of all ranks.

    Reports at the end of an epoch, before each validation and at the end of training what came
    new since the last report, and nothing where nothing was left out.

    Args:
        interval: iterations between two checks that all ranks together have met no more broken
            rows than `max_bad_rows` permits; the workers of one rank check at every row.
    """

    priority = "LOW"

    def __init__(self, interval: int = 100) -> None:
        self.interval = interval
        self._dataset: Any = None
        self._reported: Counter[str] = Counter()

    def before_train(self, runner: Runner) -> None:
        """Remember the data set."""
        self._dataset = runner.train_dataloader.dataset

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Check the limit of broken rows; see `interval`."""
        if self.every_n_train_iters(runner, self.interval):
            self._totals()

    def after_train_epoch(self, runner: Runner) -> None:
        """Report an epoch."""
        self._report(runner)

    def before_val(self, runner: Runner) -> None:
        """Report the iterations since the last validation."""
        self._report(runner)

    def after_train(self, runner: Runner) -> None:
        """Report the rest."""
        self._report(runner)

    def _totals(self) -> Counter[str]:
        """What all ranks together left out.

        Raises:
            DataError: there are more broken rows than permitted.
        """
        ledgers = list(ledgers_of(self._dataset))
        ranks = all_gather_object([ledger.state() for ledger in ledgers])
        totals: Counter[str] = Counter()
        for ledger, states in zip(ledgers, zip(*ranks, strict=True), strict=True):
            state = over_ranks(ledger, states)
            check_permitted(ledger, state)
            totals += state.totals()
        return totals

    def _report(self, runner: Runner) -> None:
        if self._dataset is None:
            return
        totals = self._totals()
        new = totals - self._reported
        self._reported = totals
        if new:
            causes = "; ".join(f"{cause}: {number:,}" for cause, number in new.most_common())
            runner.logger.info("left out of the training data since the last report: %s", causes)
