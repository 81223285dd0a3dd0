"""Say once per epoch what the training data lost on its way to the model."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from llmdet.datasets.counting import dropped_totals
from llmdet.registry import HOOKS


@HOOKS.register_module()
class DropSummaryHook(Hook):
    """Log how many boxes, phrases, captions and rows were left out, by cause, of all ranks.

    Reports at the end of an epoch, before each validation and at the end of training what came
    new since the last report, and nothing where nothing was left out.
    """

    priority = "LOW"

    def __init__(self) -> None:
        self._dataset: Any = None
        self._reported: Counter[str] = Counter()

    def before_train(self, runner: Runner) -> None:
        """Remember the data set."""
        self._dataset = runner.train_dataloader.dataset

    def after_train_epoch(self, runner: Runner) -> None:
        """Report an epoch."""
        self._report(runner)

    def before_val(self, runner: Runner) -> None:
        """Report the iterations since the last validation."""
        self._report(runner)

    def after_train(self, runner: Runner) -> None:
        """Report the rest."""
        self._report(runner)

    def _report(self, runner: Runner) -> None:
        if self._dataset is None:
            return
        totals: Counter[str] = Counter()
        for counts in all_gather_object(dropped_totals(self._dataset)):
            totals.update(counts)
        new = totals - self._reported
        self._reported = totals
        if new:
            causes = "; ".join(f"{cause}: {number:,}" for cause, number in new.most_common())
            runner.logger.info("left out of the training data since the last report: %s", causes)
