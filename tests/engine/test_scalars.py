"""Deferred log values against mmengine's, which are read in every step."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS

from llmdet import engine
from llmdet.engine import build_runner
from llmdet.engine.scalars import DeferredOptimWrapper, DeferredRuntimeInfoHook, scalars_of


class ThreeLosses(BaseModel):
    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.linear = torch.nn.Linear(3, 1)

    def forward(self, x, mode="tensor"):
        error = self.linear(torch.stack(x)) - 1
        return {
            "loss_a": error.square().mean(),
            "loss_b": [error.abs().mean(), error.abs().amax()],
            "loss_half": error.abs().mean().bfloat16(),
            "accuracy": (error.abs() < 0.5).double().mean(),
        }


class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return {"x": torch.tensor([1.0, index, index**2]) / 20}


@pytest.fixture(autouse=True)
def registered():
    MODELS.register_module(name="ThreeLosses", module=ThreeLosses, force=True)
    DATASETS.register_module(name="Points", module=Points, force=True)


def config(work_dir: Path, scope: str, iterations: int = 11, **changes) -> Config:
    settings = dict(
        model=dict(type="mmengine.ThreeLosses"),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=dict(type="mmengine.Points"),
            batch_size=2,
            num_workers=0,
            sampler=dict(type="mmengine.InfiniteSampler", shuffle=True),
        ),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=100),
        optim_wrapper=dict(
            type="OptimWrapper",
            # What fused kernels round otherwise has nothing to do with logs.
            optimizer=dict(type="AdamW", lr=0.1, fused=False),
            clip_grad=dict(max_norm=0.1),
        ),
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", interval=7, by_epoch=False),
            logger=dict(type="LoggerHook", interval=5),
        ),
        log_processor=dict(type="LogProcessor", window_size=3, by_epoch=False),
        default_scope=scope,
        randomness=dict(seed=3),
        experiment_name=f"{work_dir.parent.name}_{work_dir.name}",
    )
    return Config({**settings, **changes})


def histories(hub) -> dict:
    left_out = ("train/time", "train/data_time")
    return {
        name: [part.tolist() for part in history.data]
        for name, history in hub.log_scalars.items()
        if name not in left_out
    }


def logged(work_dir: Path) -> list[dict]:
    (path,) = work_dir.glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "data_time")} for row in rows]


def test_logs_and_histories_are_those_of_mmengine_in_values_and_order(tmp_path):
    runners = {}
    for scope in ("mmengine", "llmdet"):
        runners[scope] = build_runner(config(tmp_path / scope, scope, iterations=10))
        runners[scope].train()
    hooks = [type(hook) for hook in runners["llmdet"].hooks]
    assert DeferredRuntimeInfoHook in hooks
    assert type(runners["llmdet"].optim_wrapper) is DeferredOptimWrapper
    ours, theirs = (histories(runners[scope].message_hub) for scope in ("llmdet", "mmengine"))
    assert list(ours.items()) == list(theirs.items())
    assert len(ours["train/grad_norm"][0]) == len(ours["train/loss_half"][0]) == 10
    assert logged(tmp_path / "llmdet") == logged(tmp_path / "mmengine")
    assert [list(row) for row in logged(tmp_path / "llmdet")] == [
        list(row) for row in logged(tmp_path / "mmengine")
    ]


def test_a_checkpoint_between_two_logs_has_the_history_up_to_its_step(tmp_path):
    build_runner(config(tmp_path / "run", "llmdet")).train()
    state = engine.read_training_state(tmp_path / "run" / "iter_7.pth")
    assert len(state["message_hub"]["log_scalars"]["train/loss_a"].data[0]) == 7


def test_values_are_read_once_for_all_steps_of_an_interval(monkeypatch):
    hub = MessageHub.get_instance("test_values_are_read_once")
    scalars = scalars_of(hub)
    scalars.deferring = True
    scalars.add({"train/loss": torch.tensor(0.0)})  # begins the history
    reads = []
    read = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(self) or read(self))
    monkeypatch.setattr(torch.Tensor, "item", lambda self: pytest.fail("read by itself"))
    for step in range(1, 50):
        scalars.add({"train/loss": torch.tensor(float(step))})
    assert not reads
    assert scalars.flush()
    assert len(reads) == 1
    assert hub.get_scalar("train/loss").data[0].tolist() == list(range(50))
    assert not scalars.flush()


def test_nothing_is_deferred_where_another_class_processes_logs(tmp_path):
    runner = build_runner(
        config(tmp_path / "run", "llmdet", log_processor=dict(type="mmengine.LogProcessor"))
    )
    runner.train()
    assert not scalars_of(runner.message_hub).deferring
    assert len(runner.message_hub.get_scalar("train/loss").data[0]) == 11


def test_histories_keep_what_windows_need_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("llmdet.engine.scalars._KEPT_VALUES", 4)
    runner = build_runner(config(tmp_path / "bounded", "llmdet", iterations=20))
    runner.train()
    lengths = {len(values[0]) for values in histories(runner.message_hub).values()}
    assert max(lengths) <= 4 + 5  # those since the last log
    everything = dict(type="LogProcessor", by_epoch=False, custom_cfg=[GLOBAL_MEAN])
    changes = dict(iterations=20, log_processor=everything)
    runner = build_runner(config(tmp_path / "whole", "llmdet", **changes))
    runner.train()
    assert len(runner.message_hub.get_scalar("train/loss").data[0]) == 20


GLOBAL_MEAN = dict(data_src="loss", method_name="mean", window_size="global", log_name="mean_loss")
