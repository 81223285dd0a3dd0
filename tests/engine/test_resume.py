"""A run that is killed and resumed equals one that never was, to the last bit."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from llmdet.datasets.toy import ToySettings, generate
from llmdet.datasets.toy.models import write_toy_models
from llmdet.engine import build_runner, latest_checkpoint, read_training_state
from llmdet.engine.loops import RepeatableBatches, seed_everything
from llmdet.errors import DataError
from llmdet.testing.line import Line, line_config


def records(path):
    """The last record of every iteration, and how many there were."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["iteration"]: line for line in lines}, len(lines)


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    """Work dirs of whole and of killed runs, with one and with two processes."""
    folder = tmp_path_factory.mktemp("runs")
    toy = generate(folder / "toy", ToySettings(train=8, val=2))
    write_toy_models(toy)
    log = folder / "log"  # a file: workers of a killed process would keep a pipe open
    with log.open("w") as file:
        program = Path(__file__).with_name("killed_runs.py")
        command = [sys.executable, str(program), str(root), str(toy), str(folder)]
        result = subprocess.run(command, cwd=folder, stdout=file, stderr=file, timeout=1800)
    assert result.returncode == 0, log.read_text()[-3000:]
    return folder


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_and_resumed_run_repeats_the_run_that_never_was_killed(runs, processes):
    work = runs / str(processes)
    for rank in range(processes):
        whole, _ = records(work / "whole" / f"rank{rank}.jsonl")
        killed, written = records(work / "killed" / f"rank{rank}.jsonl")
        assert list(whole) == list(killed) == [1, 2, 3, 4]
        assert rank or written == 2 + 2 + 2
        for number, record in whole.items():
            assert killed[number] == record
        assert "loss_lmm_image" in whole[1]["losses"]
    states = [read_training_state(work / name / "iter_4.pth") for name in ("whole", "killed")]
    for key, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][key]), key
    moments = [state["optimizer"]["state"] for state in states]
    for key, values in moments[0].items():
        for name, value in values.items():
            assert torch.equal(value, moments[1][key][name]), (key, name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_ranks_and_iterations_are_given_different_samples(runs):
    records_of_ranks = [records(runs / "2" / "whole" / f"rank{rank}.jsonl")[0] for rank in (0, 1)]
    texts = [str(line["samples"]) for ranks in records_of_ranks for line in ranks.values()]
    assert len(set(texts)) == len(texts) == 8


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_two_processes_train_over_gloo_where_there_is_no_cuda_and_stay_equal(runs):
    assert [(runs / "line" / f"rank{rank}.equal").read_text() for rank in (0, 1)] == ["gloo"] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_ranks_that_read_different_checkpoints_are_refused(runs):
    for rank in (0, 1):
        text = (runs / "line" / f"rank{rank}.error").read_text()
        assert "rank 0 is at iteration 2 and rank 1 at 0" in text


class Counting:
    """Batches of a sampler of six, which notes how often they were drawn."""

    def __init__(self):
        self.sampler = self
        self.epoch = 0
        self.drawn = []

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 3

    def __iter__(self):
        for start in (0, 2, 4):
            self.drawn.append((self.epoch, start))
            yield [start + 10 * self.epoch, start + 10 * self.epoch + 1]


def test_batches_continue_within_any_epoch():
    whole = iter(RepeatableBatches(Counting(), 0, endless=True))
    first = [next(whole) for _ in range(8)]
    rest = RepeatableBatches(Counting(), 0, endless=True)
    rest.skip = 5
    assert first[5:] == [batch for batch, _ in zip(rest, range(3), strict=False)]
    assert [batch.indices for batch in first[2:5]] == [(4, 5), (10, 11), (12, 13)]


def test_samples_of_two_batches_draw_different_numbers_and_the_same_again():
    first, second = [next(iter(RepeatableBatches(Counting(), 0, endless=True))) for _ in range(2)]
    draws = [[torch.rand(1).item() for _ in batch] for batch in (first, second)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 2


def test_a_seed_of_many_numbers_seeds_every_source():
    def draw(*key):
        seed_everything(key)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(1, 2) == draw(1, 2)
    assert not set(draw(1, 2)) & set(draw(2, 1))


def test_data_without_a_batch_are_refused_and_not_waited_for():
    class Empty(Counting):
        def __iter__(self):
            return iter(())

    with pytest.raises(DataError, match="no batch"):
        next(iter(RepeatableBatches(Empty(), 0, endless=True)))


@pytest.mark.parametrize(
    "loop",
    [
        dict(type="EpochBasedTrainLoop", max_epochs=2),
        dict(by_epoch=True, max_epochs=2),
        dict(type="IterBasedTrainLoop", max_iters=8),
        dict(by_epoch=False, max_iters=8),
    ],
)
def test_a_run_continues_within_an_epoch_and_reads_nothing_again(tmp_path, monkeypatch, loop):
    read = []
    item = Line.__getitem__
    monkeypatch.setattr(Line, "__getitem__", lambda self, i: read.append(i) or item(self, i))
    changes = dict(default_scope="llmdet", train_cfg=loop)
    sampler = dict(type="DefaultSampler", shuffle=True)

    def make(folder, **more):
        config = line_config(tmp_path / folder, **changes, **more)
        config.train_dataloader.sampler = sampler
        config.default_hooks.checkpoint.interval = 3
        config.default_hooks.sampler_seed = dict(type="DistSamplerSeedHook")
        return build_runner(config)

    whole = make("whole")
    whole.train()
    path = str(tmp_path / "whole" / "iter_6.pth")
    before = list(read)
    rest = make("rest", load_from=path, resume=True)
    rest.train()
    assert len(before) == 16
    assert read[16:] == before[12:]
    assert rest.iter == whole.iter == 8
    assert torch.equal(rest.model.linear.weight, whole.model.linear.weight)


def test_another_number_of_processes_is_said(tmp_path, caplog):
    build_runner(line_config(tmp_path / "run", max_iters=2, default_scope="llmdet")).train()
    path = latest_checkpoint(tmp_path / "run")
    content = torch.load(path, weights_only=False)
    content["meta"]["processes"] = 4
    torch.save(content, path)
    again = line_config(tmp_path / "run", default_scope="llmdet", load_from=str(path), resume=True)
    again.experiment_name = "again"
    runner = build_runner(again)
    logging.getLogger("llmdet").addHandler(caplog.handler)
    runner.train()
    logging.getLogger("llmdet").removeHandler(caplog.handler)
    assert "4 processes" in caplog.text
