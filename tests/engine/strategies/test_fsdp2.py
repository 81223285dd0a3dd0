"""Models that are spread over processes train, save and continue like whole ones."""

from __future__ import annotations

import json
import pickle
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook

from llmdet.checkpoint import read_checkpoint
from llmdet.engine import build_runner, latest_checkpoint, read_training_state
from llmdet.errors import CheckpointError, ConfigError, TrainingInterrupted
from llmdet.testing.processes import run_processes
from llmdet.testing.spread import assert_equal_states, layers_config, resume, train

CONSOLIDATED = dict(type="FSDP2")
SHARDED = dict(type="FSDP2", checkpoints="sharded")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A folder that two processes wrote after four steps, and the state that they had."""
    folder = tmp_path_factory.mktemp("sharded")
    config = layers_config(folder / "run", strategy=SHARDED)
    outcomes = run_processes(2, train, config, folder=folder)
    return folder / "run" / "iter_4.pth", outcomes[0]["state"]


def test_two_processes_train_as_they_do_with_whole_models(tmp_path):
    whole = run_processes(2, train, layers_config(tmp_path / "whole"), folder=tmp_path)
    config = layers_config(tmp_path / "spread", strategy=CONSOLIDATED)
    spread = run_processes(2, train, config, folder=tmp_path)
    for before, after in zip(whole, spread, strict=True):
        torch.testing.assert_close(before["loss"], after["loss"], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(before["norm"], after["norm"], rtol=1e-6, atol=1e-7)
        assert after["numbers"] < 0.7 * before["numbers"]
    expected, found = (
        read_training_state(tmp_path / name / "iter_4.pth") for name in ("whole", "spread")
    )
    assert expected.keys() == found.keys()
    assert list(expected["state_dict"]) == list(found["state_dict"])
    torch.testing.assert_close(expected["state_dict"], found["state_dict"])
    torch.testing.assert_close(expected["optimizer"]["state"], found["optimizer"]["state"])


def test_a_run_that_is_spread_continues_one_that_was_not_and_the_other_way_round(tmp_path):
    straight = train(layers_config(tmp_path / "straight"))["state"]
    train(layers_config(tmp_path / "whole", max_iters=2))
    half = str(tmp_path / "whole" / "iter_2.pth")
    config = layers_config(tmp_path / "one", strategy=CONSOLIDATED, load_from=half, resume=True)
    assert_equal_states(train(config)["state"], straight)

    load = dict(load_from=half, resume=True, max_iters=2)
    config = layers_config(tmp_path / "two", strategy=CONSOLIDATED, **load)
    found = run_processes(2, resume, config, folder=tmp_path)[0]["state"]
    expected = train(layers_config(tmp_path / "again", **load))["state"]
    assert_equal_states(found, expected)


@pytest.mark.parametrize("processes", [2, 4])
def test_what_two_processes_wrote_is_read_by_any_number(processes, sharded, tmp_path):
    folder, expected = sharded
    load = dict(load_from=str(folder), resume=True)
    config = layers_config(tmp_path / "run", strategy=SHARDED, **load)
    found = run_processes(processes, resume, config, folder=tmp_path)
    assert all(each["iter"] == 4 for each in found)
    assert_equal_states(found[0]["state"], expected, rtol=0, atol=0)


@pytest.mark.parametrize("strategy", [None, SHARDED, CONSOLIDATED])
def test_what_two_processes_wrote_is_read_by_one_without_and_with_a_strategy(
    strategy, sharded, tmp_path
):
    folder, expected = sharded
    load = dict(load_from=str(folder), resume=True, max_iters=5)
    given = {} if strategy is None else {"strategy": strategy}
    runner = build_runner(layers_config(tmp_path / "run", **given, **load))
    runner.train_loop  # noqa: B018  builds it
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.load_or_resume()
    state = {"weights": runner.model.state_dict(), "optimizer": runner.optim_wrapper.state_dict()}
    assert_equal_states(state, expected, rtol=0, atol=0)


class Press(Hook):
    """Presses Ctrl-C in one of the processes."""

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter == 1 and runner.rank == 1:
            signal.raise_signal(signal.SIGINT)


def interrupted(config: Any) -> str:
    """What a training says that Ctrl-C ends."""
    config.launcher = "pytorch"
    config.default_hooks.interrupt = dict(type="InterruptHook")
    runner = build_runner(config)
    runner.register_hook(Press())
    with pytest.raises(TrainingInterrupted) as stopped:
        runner.train()
    return str(stopped.value)


def test_ctrl_c_in_one_process_saves_the_parts_of_all(sharded, tmp_path):
    config = layers_config(tmp_path / "run", strategy=SHARDED)
    for said in run_processes(2, interrupted, config, folder=tmp_path):
        assert re.match(r"stopped after iteration 3; saved .*/iter_3\.pth; the same", said)
    config = layers_config(tmp_path / "run", strategy=SHARDED, resume=True)
    found = run_processes(2, train, config, folder=tmp_path)
    assert_equal_states(found[0]["state"], sharded[1], rtol=0, atol=0)


def test_a_folder_of_parts_is_read_as_weights(sharded):
    folder, expected = sharded
    read = read_checkpoint(folder)
    torch.testing.assert_close(read.state_dict, dict(expected["weights"]), rtol=0, atol=0)
    assert read.meta["iter"] == 4


def test_a_folder_of_parts_holds_no_program(sharded):
    folder, _ = sharded
    names = {path.name for path in folder.iterdir()}
    assert {"shards.json", "state.pth"} < names
    assert all(name.endswith((".safetensors", ".json", ".pth")) for name in names)


class Program:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_a_program_in_a_folder_of_parts_is_refused(sharded, tmp_path):
    copy = tmp_path / "iter_4.pth"
    copy.mkdir()
    for path in sharded[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    torch.save({"meta": Program()}, copy / "state.pth")
    with pytest.raises(CheckpointError, match=r"'state\.pth' is not as it was written"):
        read_checkpoint(copy)
    (copy / "shards.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(CheckpointError, match="would run a program"):
        read_checkpoint(copy)
    (copy / ".metadata").write_bytes(pickle.dumps(Program()))  # as PyTorch's own format has it
    load = dict(load_from=str(copy), resume=True, strategy=SHARDED)
    with pytest.raises(CheckpointError, match="would execute code"):
        train(layers_config(tmp_path / "run", **load))


def test_a_damaged_folder_is_passed_over(sharded, tmp_path):
    older = tmp_path / "iter_3.pth"
    newer = tmp_path / "iter_4.pth"
    for copy in (older, newer):
        copy.mkdir()
        for path in sharded[0].iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
    assert latest_checkpoint(tmp_path) == newer
    part = next(newer.glob("*.safetensors"))
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    assert latest_checkpoint(tmp_path) == older


def test_weights_must_fit_a_model_that_is_spread(tmp_path):
    start = tmp_path / "start.pth"
    torch.save({"state_dict": {"bbox_head.linear.weight": torch.zeros(2, 2)}}, start)
    config = layers_config(tmp_path / "run", strategy=CONSOLIDATED, load_from=str(start))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        train(config)


def test_what_cannot_be_spread_is_refused_in_one_sentence(tmp_path):
    average = dict(strategy=CONSOLIDATED, custom_hooks=[dict(type="EMAHook")])
    with pytest.raises(ConfigError, match="EMAHook copies the whole model"):
        build_runner(layers_config(tmp_path, **average))
    with pytest.raises(ConfigError, match="choose 'consolidated' or 'sharded'"):
        build_runner(layers_config(tmp_path, strategy=dict(type="FSDP2", checkpoints="both")))
    with pytest.raises(ConfigError, match="is mmengine's"):
        build_runner(layers_config(tmp_path, strategy=dict(type="FSDPStrategy")))
