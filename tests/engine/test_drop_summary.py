"""What the training data lost is logged once, with the number of each cause."""

import logging
from types import SimpleNamespace

import pytest
from torch.utils.data import Dataset

from llmdet.datasets.ledger import SharedLedger
from llmdet.engine.drop_summary import DropSummaryHook


class Lossy(Dataset):
    def __init__(self):
        self.dropped = SharedLedger("box too small", "row broken")


@pytest.fixture
def runner():
    logger = logging.getLogger("test_drop_summary")
    return SimpleNamespace(train_dataloader=SimpleNamespace(dataset=Lossy()), logger=logger)


def test_each_report_names_what_came_new(runner, caplog):
    hook, dropped = DropSummaryHook(), runner.train_dataloader.dataset.dropped
    with caplog.at_level(logging.INFO):
        hook.before_train(runner)
        dropped.note("box too small", number=1200)
        hook.after_train_epoch(runner)
        assert caplog.messages[-1].endswith("box too small: 1,200")
        dropped.note("box too small", number=2)
        dropped.note("row broken", number=3)
        hook.before_val(runner)
        assert caplog.messages[-1].endswith("row broken: 3; box too small: 2")
        hook.after_train(runner)
    assert len(caplog.messages) == 2


def test_a_validation_without_training_reports_nothing(runner, caplog):
    runner.train_dataloader.dataset.dropped.note("row broken")
    with caplog.at_level(logging.INFO):
        DropSummaryHook().before_val(runner)
    assert caplog.messages == []
