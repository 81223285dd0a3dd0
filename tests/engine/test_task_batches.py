"""Training on batches of one task each: the ratios of a config, also after a run is resumed."""

from __future__ import annotations

import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import ConcatDataset

from llmdet.engine import build_runner
from llmdet.registry import DATASETS
from llmdet.testing.line import Line, line_config


class TwoLines(ConcatDataset):
    """Eight points of a task, and eight of another."""

    metainfo = Line.metainfo

    def __init__(self):
        super().__init__([Line(), Line()])


@pytest.fixture(autouse=True)
def registered():
    DATASETS.register_module(name="TwoLines", module=TwoLines, force=True)


class Record(Hook):
    """Keeps the batches of every iteration."""

    def __init__(self):
        self.batches = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.batches.append(torch.stack(list(data_batch)).tolist())


def train(work_dir, iterations, by_epoch=False, **changes):
    """Train on points of two lines, three batches of the first one for each of the second."""
    sampler = dict(type="ShareSampler", shares=[3, 1])
    loop = dict(type="IterBasedTrainLoop", max_iters=iterations)
    if by_epoch:
        sampler["images"] = 8
        loop = dict(type="EpochBasedTrainLoop", max_epochs=iterations // 4)
    loader = dict(
        dataset=dict(type="TwoLines"),
        num_workers=0,
        batch_size=2,
        sampler=sampler,
        batch_sampler=dict(type="TaskBatchSampler", tasks=["caption", "choose"]),
    )
    runner = build_runner(
        line_config(
            work_dir,
            train_dataloader=loader,
            train_cfg=loop,
            default_scope="llmdet",
            **changes,
        )
    )
    record = Record()
    runner.register_hook(record)
    runner.train()
    return runner, record.batches


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_resumed_run_goes_on_with_the_same_batches_to_the_same_weights(tmp_path, by_epoch):
    whole, batches = train(tmp_path / "whole", 8, by_epoch)
    assert len(batches) == 8
    assert batches[:4] != batches[4:]
    _, first = train(tmp_path / "first", 4, by_epoch)
    last = tmp_path / "first" / "iter_2.pth"  # within an epoch
    resumed, rest = train(tmp_path / "rest", 8, by_epoch, load_from=str(last), resume=True)
    assert first == batches[:4]
    assert rest == batches[2:]
    assert torch.equal(resumed.model.linear.weight, whole.model.linear.weight)


def test_steps_have_one_task_in_the_given_ratio(tmp_path):
    runner, _ = train(tmp_path / "run", 8)
    steps = iter(runner.train_loop.batches)
    parts = [{index // len(Line()) for index in next(steps).indices} for _ in range(8)]
    assert sorted(map(tuple, parts)) == [(0,)] * 6 + [(1,)] * 2
