"""DeepSpeed's ZeRO trains, saves and continues like a run of whole models."""

from __future__ import annotations

import sys

import pytest
import torch

from llmdet.engine import build_runner, read_training_state
from llmdet.engine.strategies.zero import ZeroModel, load_deepspeed
from llmdet.errors import CheckpointError, ConfigError
from llmdet.testing.processes import run_processes
from llmdet.testing.spread import assert_equal_states, import_deepspeed, layers_config, train


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Four steps of two processes with whole models, and their folder."""
    import_deepspeed()
    folder = tmp_path_factory.mktemp("whole")
    return run_processes(2, train, layers_config(folder / "run"), folder=folder), folder / "run"


def zero(folder, **changes):
    return layers_config(folder, strategy=dict(type="DeepSpeed"), **changes)


def test_two_processes_train_as_they_do_with_whole_models(whole, tmp_path):
    before, folder = whole
    after = run_processes(2, train, zero(tmp_path / "zero"), folder=tmp_path)
    for expected, found in zip(before, after, strict=True):
        torch.testing.assert_close(expected["loss"], found["loss"], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(expected["norm"], found["norm"], rtol=1e-6, atol=1e-7)
    expected, found = (
        read_training_state(work_dir / "iter_4.pth") for work_dir in (folder, tmp_path / "zero")
    )
    assert expected.keys() == found.keys()
    assert list(expected["state_dict"]) == list(found["state_dict"])
    torch.testing.assert_close(expected["state_dict"], found["state_dict"])
    torch.testing.assert_close(expected["optimizer"]["state"], found["optimizer"]["state"])


def test_a_run_continues_one_without_strategy_to_the_same_end(whole, tmp_path):
    half = whole[1] / "iter_2.pth"
    config = zero(tmp_path / "run", load_from=str(half), resume=True)
    found = run_processes(2, train, config, folder=tmp_path)
    assert_equal_states(found[0]["state"], whole[0][0]["state"])


def test_files_of_deepspeed_are_refused(tmp_path):
    """They are pickles: a folder of them, and a file in it, end with a sentence."""
    folder = tmp_path / "global_step4"
    folder.mkdir()
    torch.save({"module": Program()}, folder / "mp_rank_00_model_states.pt")
    for path in (folder, folder / "mp_rank_00_model_states.pt"):
        config = zero(tmp_path / "run", load_from=str(path), resume=True)
        with pytest.raises(
            CheckpointError, match=r"DeepSpeed's folders hold pickles|would execute code"
        ):
            train(config)


def test_what_deepspeed_cannot_do_is_refused_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="only stage 2 works"):
        build_runner(layers_config(tmp_path, strategy=dict(type="DeepSpeed", stage=3)))
    sharded = dict(type="DeepSpeed", checkpoints="sharded")
    with pytest.raises(ConfigError, match="are pickles"):
        build_runner(layers_config(tmp_path, strategy=sharded))
    finite = dict(finite_losses=dict(type="FiniteLossHook", action="skip"))
    with pytest.raises(ConfigError, match="take 'stop'"):
        build_runner(zero(tmp_path, default_hooks=finite))
    config = zero(tmp_path)
    config.optim_wrapper.clip_grad = dict(type="value", clip_value=1.0)
    with pytest.raises(ConfigError, match="clips by the norm"):
        train(config)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[deepspeed\]'"):
        load_deepspeed()


class Program:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_the_precision_around_the_engine_holds_inside_of_it(monkeypatch):
    class Engine:
        """Turns autocast off, as DeepSpeed's does."""

        module = torch.nn.Linear(2, 2)

        def forward(self, values):
            with torch.autocast("cpu", enabled=False):
                return self.module(values)

    model = ZeroModel(Engine())
    assert model(torch.ones(1, 2)).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.ones(1, 2)).dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
