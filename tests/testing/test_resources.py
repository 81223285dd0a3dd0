"""Trends of memory and files are found, and noise is none; a training has none."""

import mmap
import os

import numpy as np
import pytest

from llmdet.engine import build_runner
from llmdet.testing.line import line_config
from llmdet.testing.resources import FILES, MEMORY, ResourceHook, held, trends


def looks(values):
    return [(20 * number, {"x": value}) for number, value in enumerate(values, start=1)]


def grows(values) -> bool:
    (trend,) = trends(looks(values))
    return trend.grows


def test_what_grows_is_told_from_noise_a_warm_up_and_what_shrinks():
    noise = np.random.default_rng(0).normal(0, 2, 100)
    assert grows(200 + noise + np.arange(100) * 0.3)
    assert not grows(200 + noise)
    assert not grows(200 + noise + 50 * (np.arange(100) > 10))
    assert not grows(200 + noise - np.arange(100))
    assert not grows([7.0] * 100)


def test_the_slope_is_per_thousand_iterations():
    (trend,) = trends(looks(np.arange(100.0)))
    assert trend.slope == pytest.approx(50)


def test_an_opened_file_and_written_memory_are_seen():
    megabytes = 20
    before = held()
    # Not an array, which may lie in memory that was freed before.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with open(os.devnull), mmap.mmap(-1, megabytes << 20, flags=flags) as memory:
        # In pieces: a large text of its own may stay with the allocator when it is freed.
        for _ in range(len(memory) >> 16):
            memory.write(b"1" * (1 << 16))
        after = held()
    assert after[FILES] == before[FILES] + 1
    assert after[MEMORY] - before[MEMORY] == pytest.approx(megabytes, abs=3)


def test_a_long_training_holds_on_to_nothing(tmp_path, monkeypatch):
    """The runner, its logs and checkpoints; tools/benchmark/long_run.py has the detector too."""
    monkeypatch.setattr("llmdet.engine.scalars._KEPT_VALUES", 100)
    watch = ResourceHook(every=10)
    config = line_config(tmp_path / "run", 600)
    config.default_scope = "llmdet"
    config.model.type, config.train_dataloader.dataset.type = "mmengine.Regression", "mmengine.Line"
    config.default_hooks.checkpoint.interval = 150
    config.default_hooks.checkpoint.max_keep_ckpts = 1
    config.log_processor = dict(type="LogProcessor", by_epoch=False)
    config.visualizer = dict(
        type="DetLocalVisualizer",
        vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
    )
    runner = build_runner(config)
    runner.register_hook(watch, "LOWEST")
    runner.train()
    assert len(watch.looks) == 60
    assert not [trend for trend in trends(watch.looks) if trend.grows]
    assert len(runner.message_hub.get_scalar("train/loss").data[0]) <= 110
