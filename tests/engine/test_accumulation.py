"""Runs that add up gradients of micro-batches end where runs with the whole batches do."""

from __future__ import annotations

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import nn
from torch.utils.data import Dataset

from llmdet.engine import build_runner, read_training_state
from llmdet.models.accumulation import StepTotals, step_totals
from llmdet.testing.line import line_config


class Heaps(Dataset):
    """Item i has i % 3 things."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"inputs": torch.tensor([index / 12]), "data_samples": torch.tensor(index % 3)}


class ThingLoss(BaseModel):
    """Its loss is a sum over things divided by their number, as a detector's is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.seen: list[StepTotals | None] = []

    def count_step(self, batches: list[list[torch.Tensor]]) -> StepTotals:
        things = sum(int(sample) for samples in batches for sample in samples)
        return StepTotals(len(batches), things, things, 2)

    def forward(self, inputs, data_samples, mode="loss"):
        totals = step_totals()
        self.seen.append(totals)
        x, things = torch.stack(list(inputs)), torch.stack(list(data_samples))
        number = things.sum() if totals is None else totals.matched / totals.parts
        errors = (self.linear(x)[:, 0] - 3 * x[:, 0]) ** 2
        return {"loss": (errors * things).sum() / max(number, 1)}


@pytest.fixture(autouse=True)
def registered():
    DATASETS.register_module(name="Heaps", module=Heaps, force=True)
    MODELS.register_module(name="ThingLoss", module=ThingLoss, force=True)


def run(folder, batch_size, counts, iterations, by_epoch=False, **changes):
    config = line_config(folder, default_scope="llmdet", model=dict(type="ThingLoss"), **changes)
    config.train_dataloader.update(
        dataset=dict(type="Heaps"),
        batch_size=batch_size,
        sampler=dict(type="DefaultSampler" if by_epoch else "InfiniteSampler", shuffle=False),
    )
    config.optim_wrapper = dict(
        type="OptimWrapper",
        optimizer=dict(type="SGD", lr=0.3, momentum=0.9),
        accumulative_counts=counts,
    )
    config.param_scheduler = None
    limit = {"max_epochs" if by_epoch else "max_iters": iterations}
    config.train_cfg = dict(type=f"{'Epoch' if by_epoch else 'Iter'}BasedTrainLoop", **limit)
    config.default_hooks.checkpoint.update(
        interval=3 if by_epoch else counts * 2, by_epoch=by_epoch
    )
    runner = build_runner(config)
    runner.train()
    return runner.model


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_two_micro_batches_a_step_end_where_the_batches_do(tmp_path):
    whole = run(tmp_path / "whole", 4, 1, 6)
    parts = run(tmp_path / "parts", 2, 2, 12)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-6, atol=1e-7)
    assert whole.seen == [None] * 6
    # Both parts of a step know the same totals, which differ from step to step.
    assert parts.seen[::2] == parts.seen[1::2]
    assert {totals.matched for totals in parts.seen} == {3, 4, 5}


def test_what_is_left_at_the_end_is_a_step_of_its_own(tmp_path):
    assert [totals.parts for totals in run(tmp_path, 2, 3, 5).seen] == [3, 3, 3, 2, 2]


def test_epochs_are_read_in_steps_too(tmp_path):
    whole = run(tmp_path / "whole", 4, 1, 2, by_epoch=True)
    parts = run(tmp_path / "parts", 2, 2, 2, by_epoch=True)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-6, atol=1e-7)


def test_a_run_that_is_resumed_between_steps_ends_where_it_would_have(tmp_path):
    whole = run(tmp_path / "whole", 2, 2, 8)
    run(tmp_path / "half", 2, 2, 4)
    half = str(tmp_path / "half" / "iter_4.pth")
    assert read_training_state(half)["meta"]["iter"] == 4
    rest = run(tmp_path / "rest", 2, 2, 8, load_from=half, resume=True)
    assert torch.equal(weights(rest), weights(whole))
