"""Ctrl-C in a training: one line, a checkpoint, and the same end after --resume."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook

from llmdet.engine import (
    InterruptHook,
    Runner,
    build_runner,
    latest_checkpoint,
    read_training_state,
)
from llmdet.errors import TrainingInterrupted
from llmdet.testing.line import line_config
from llmdet.utils.cli import run_cli


class Press(Hook):
    """Presses Ctrl-C."""

    def __init__(self, iteration=None, validation=None):
        self.iteration, self.validation = iteration, validation

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), signal.SIGINT)

    def after_val_iter(self, runner, *args, **kwargs):
        if runner.iter == self.validation:
            os.kill(os.getpid(), signal.SIGINT)


LAUNCHED = """
import os, signal, sys, time
from pathlib import Path

def save(number, frame):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "slow" in sys.argv:
        Path(sys.argv[1], "saving" + os.environ["RANK"]).write_text("")
        time.sleep(60)
    Path(sys.argv[1], os.environ["RANK"]).write_text("saved")
    sys.exit(130)

signal.signal(signal.SIGINT, save)
Path(sys.argv[1], "ready" + os.environ["RANK"]).write_text("")
time.sleep(60)
"""


def wait_for_both(process, folder, state):
    """Until both processes say that they have come so far."""
    while len(list(folder.glob(f"{state}*"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)


@pytest.fixture
def launched(root, tmp_path):
    """Two processes that save at Ctrl-C, and the launcher that got it once they run."""
    program = tmp_path / "program.py"
    program.write_text(LAUNCHED)

    def launch(*arguments):
        command = [sys.executable, root / "tools/launch.py", "--standalone", "--nproc_per_node=2"]
        process = subprocess.Popen(
            [*command, program, tmp_path, *arguments], stderr=subprocess.PIPE, text=True
        )
        wait_for_both(process, tmp_path, "ready")
        process.send_signal(signal.SIGINT)
        return process

    return launch


def test_the_launcher_waits_until_all_have_saved_and_adds_nothing(launched, tmp_path):
    process = launched()
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["saved", "saved"]
    assert "Traceback" not in shown
    assert "signal" not in shown


def test_a_second_press_kills_what_is_still_saving(launched, tmp_path):
    process = launched("slow")
    wait_for_both(process, tmp_path, "saving")
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - start < 30
    assert not (tmp_path / "0").exists()


@pytest.mark.parametrize(
    ("stopped", "shown"),
    [
        (TrainingInterrupted("stopped after iteration 3"), "stopped after iteration 3\n"),
        (KeyboardInterrupt(), "stopped by Ctrl-C\n"),
    ],
)
def test_programs_end_with_one_line_and_the_code_of_shells(stopped, shown, capsys, monkeypatch):
    def main():
        raise stopped

    for rank, expected in (("0", shown), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as ended:
            run_cli(main)
        assert ended.value.code == 130
        assert capsys.readouterr().err == expected


@pytest.fixture
def line(tmp_path):
    """A training of 8 steps, as a config of ours makes it; it may stop and go on."""

    def train(name="run", press=None, resume=None, **changes):
        hooks = dict(checkpoint=dict(type="CheckpointHook", interval=100, by_epoch=False))
        config = line_config(tmp_path / name, 8, **{"default_hooks": hooks, **changes})
        config.default_scope = "llmdet"
        config.model.type = "mmengine.Regression"
        config.train_dataloader.dataset.type = "mmengine.Line"
        config.default_hooks.interrupt = dict(type="InterruptHook")
        config.resume, config.load_from = resume is not None, resume
        runner = build_runner(config)
        if press is not None:
            runner.register_hook(press)
        runner.train()
        return runner.model.state_dict()

    return train


def test_ctrl_c_saves_says_how_to_go_on_and_the_end_is_the_same(line, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted) as stopped:
        line(press=Press(iteration=3))
    path = latest_checkpoint(tmp_path / "run")
    assert path.name == "iter_3.pth"
    assert str(stopped.value) == (
        f"stopped after iteration 3; saved {path}; the same command with --resume continues"
    )
    assert signal.getsignal(signal.SIGINT) is handler
    resumed, whole = line(resume=str(path)), line("whole")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert signal.getsignal(signal.SIGINT) is handler


def test_gradients_that_are_still_summed_are_not_lost(line, tmp_path):
    wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.1), accumulative_counts=2)
    with pytest.raises(TrainingInterrupted, match="after iteration 4"):
        line(press=Press(iteration=3), optim_wrapper=wrapper)


def test_within_an_epoch_it_saves_by_iteration_beside_the_epochs(line, tmp_path):
    changes = dict(
        train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=3, val_begin=99),
        param_scheduler=None,
        log_processor=dict(by_epoch=True),
    )
    changes["train_dataloader"] = dict(
        dataset=dict(type="mmengine.Line"),
        batch_size=2,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=True),
    )
    changes["default_hooks"] = dict(
        checkpoint=dict(type="CheckpointHook", interval=1, by_epoch=True, max_keep_ckpts=1)
    )
    with pytest.raises(TrainingInterrupted, match="after iteration 6"):
        line(press=Press(iteration=6), **changes)
    path = latest_checkpoint(tmp_path / "run")
    assert path.name == "iter_6.pth"
    assert read_training_state(path)["meta"]["epoch"] == 1
    resumed, whole = line(resume=str(path), **changes), line("whole", **changes)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert latest_checkpoint(tmp_path / "run").name == "epoch_3.pth"


def test_a_checkpoint_of_the_same_iteration_is_not_written_twice(line, tmp_path, monkeypatch):
    written = []
    original = Runner.save_checkpoint

    def save(self, out_dir, filename, *args, **kwargs):
        written.append(filename)
        original(self, out_dir, filename, *args, **kwargs)

    monkeypatch.setattr(Runner, "save_checkpoint", save)
    with pytest.raises(TrainingInterrupted, match=r"iter_4\.pth"):
        line(
            press=Press(iteration=4),
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=4, by_epoch=False)),
        )
    assert written == ["iter_4.pth"]


def test_all_processes_stop_after_the_same_iteration_whoever_got_the_signal(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    place = "torch.distributed.distributed_c10d._get_default_store"
    monkeypatch.setattr(place, lambda: store)
    runner = SimpleNamespace(timestamp="now")
    early, late = InterruptHook(), InterruptHook()
    for done in (1, 2, 3):
        assert not early._agreed(runner, done, 1)
    for done in (1, 2):  # the other process is behind, and gets the signal
        assert not late._agreed(runner, done, 1)
    late._requested = True
    assert not late._agreed(runner, 3, 1)
    assert [early._agreed(runner, 4, 1), late._agreed(runner, 4, 1)] == [True, True]
