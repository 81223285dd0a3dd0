"""Bars on a terminal, and nothing elsewhere."""

import io
import logging
import sys
from unittest.mock import MagicMock

import pytest
from mmengine.runner import Runner as MMEngineRunner
from rich.console import Console
from torch import nn

from llmdet.engine.runner import Runner
from llmdet.engine.terminal import TerminalProgress


def terminal(stream, **options):
    logger = logging.Logger("bars")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    return logger, TerminalProgress(logger, Console(file=stream, width=120, **options))


def test_lines_of_the_log_scroll_above_the_bars_and_the_terminal_is_given_back():
    stream, stdout = io.StringIO(), sys.stdout
    logger, bars = terminal(stream, force_terminal=True)
    bars.start("train", 10, done=4)
    bars.note("train", "loss 1.5")
    logger.info("a line")
    bars.advance("train", 5)
    shown = stream.getvalue()
    assert "a line" in shown
    assert "5/10" in shown.partition("a line")[2]
    assert "loss 1.5" in shown
    bars.start("val", 3)
    bars.finish("val")
    bars.close()
    assert sys.stdout is stdout
    assert logger.handlers[0].stream is stdout


@pytest.mark.parametrize("what", ["val", "test"])
def test_the_terminal_is_given_back_however_an_evaluation_ends(monkeypatch, what):
    def fail(runner):
        raise KeyboardInterrupt

    monkeypatch.setattr(MMEngineRunner, what, fail)
    runner = Runner.__new__(Runner)
    runner.strategy, runner._is_spread, runner.terminal = None, False, MagicMock()
    runner.model, runner._val_dataloader, runner._test_dataloader = nn.Identity(), {}, {}
    with pytest.raises(KeyboardInterrupt):
        getattr(runner, what)()
    runner.terminal.close.assert_called_once_with()


def test_a_file_gets_no_bars():
    stream = io.StringIO()
    logger, bars = terminal(stream)
    bars.start("train", 10)
    bars.advance("train", 5)
    bars.note("train", "loss")
    bars.close()
    assert stream.getvalue() == ""
    assert logger.handlers[0].stream is sys.stdout
