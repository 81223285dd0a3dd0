"""What a run leaves in its log folder."""

import json
import logging
from unittest.mock import MagicMock

import pytest

from llmdet.engine import logs
from llmdet.registry import HOOKS


@pytest.mark.parametrize("is_main", [True, False])
def test_one_process_alone_writes_what_a_test_measured(tmp_path, monkeypatch, is_main):
    monkeypatch.setattr(logs, "is_main_process", lambda: is_main)
    runner = MagicMock(log_dir=str(tmp_path), timestamp="now")
    runner.log_processor.get_log_after_epoch.return_value = {"AP": 0.5}, "AP 0.5"
    hook = HOOKS.build(dict(type="LoggerHook"))
    hook.json_log_path = "now.json"
    hook.after_test_epoch(runner)
    written = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert written == ([{"AP": 0.5}] if is_main else [])


@pytest.fixture
def young_run(tmp_path):
    def made(number, max_iters=100):
        runner = MagicMock(iter=number - 1, max_iters=max_iters)
        runner.log_processor.get_log_after_iter.return_value = {"loss": 1.0}, "a line"
        return runner

    return made


@pytest.mark.parametrize(
    ("number", "line", "values"),
    [(1, 1, 0), (2, 1, 0), (3, 0, 0), (5, 1, 0), (30, 1, 1), (31, 0, 0), (100, 1, 1)],
)
def test_a_young_run_is_not_silent_and_its_end_is_logged(young_run, number, line, values):
    runner = young_run(number)
    hook = HOOKS.build(dict(type="LoggerHook", interval=30))
    hook.after_train_iter(runner, number - 1)
    assert runner.logger.info.call_count == line
    assert runner.visualizer.add_scalars.call_count == values


def test_lines_have_a_level_only_where_it_tells_something():
    form = logs.LineFormatter()
    texts = [
        form.format(logging.LogRecord("x", level, "", 0, "said %d", (3,), None))
        for level in (logging.INFO, logging.WARNING)
    ]
    assert [text.partition("  ")[2] for text in texts] == ["said 3", "WARNING: said 3"]


def test_runs_of_one_second_have_names_of_their_own():
    second = "20011231_235959"
    names = [logs.own_timestamp(second) for _ in range(3)]
    assert names == [second, f"{second}_2", f"{second}_3"]
    assert logs.own_timestamp("20020101_000000") == "20020101_000000"
