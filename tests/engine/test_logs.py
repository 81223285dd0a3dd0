"""What a run leaves in its log folder."""

import json
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
