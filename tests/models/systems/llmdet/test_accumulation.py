"""Gradients of micro-batches, added up, are those of the whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributed as dist

from llmdet.models.accumulation import accumulating
from llmdet.testing.processes import run_processes

IMAGES = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(4))
#: Numbers of boxes and captions that differ as much as they can.
GIVEN = (
    {"boxes": 5},
    {"boxes": 0, "regions": False},
    {"boxes": 1, "image": False},
    {"boxes": 2, "image": False, "regions": False},
)
#: What is drawn at random is not drawn for micro-batches as for the batch.
NO_NOISE = {"label_noise_scale": 0.0, "box_noise_scale": 0.0}


def step(model: Any, samples: Any, parts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Mean losses and gradients of a step whose micro-batches have these images."""
    batches = [[samples(**GIVEN[image]) for image in part] for part in parts]
    totals = model.count_step(batches) if len(parts) > 1 else None
    model.zero_grad()
    logged: dict[str, Tensor] = {}
    for part, batch in zip(parts, batches, strict=True):
        with accumulating(totals):
            losses = model.loss(IMAGES[list(part)], batch)
        total, each = model.parse_losses(losses)
        (total / len(parts)).backward()
        for name, value in each.items():
            logged[name] = logged.get(name, 0) + value.detach() / len(parts)
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    if dist.is_initialized():
        for value in [*gradients.values(), *logged.values()]:
            dist.all_reduce(value)
    return {"losses": logged, "gradients": gradients}


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-5, atol=1e-6)
    for name, gradient in expected["gradients"].items():
        scale = gradient.abs().max().clamp(min=1e-3)
        difference = (found["gradients"][name] - gradient).abs().max() / scale
        assert difference < 1e-5, (name, float(difference))


@pytest.mark.parametrize("parts", [[(0, 1), (2, 3)], [(0,), (1,), (2,), (3,)]], ids=["2", "4"])
@pytest.mark.parametrize("sync", [True, False])
def test_micro_batches_give_the_gradients_of_the_batch(make_llmdet, samples, parts, sync):
    head = {"sync_cls_avg_factor": sync}
    model = make_llmdet(dn_cfg=NO_NOISE, bbox_head=head).train()
    assert_equal(step(model, samples, parts), step(model, samples, [(0, 1, 2, 3)]))


def test_without_totals_the_update_is_another(make_llmdet, samples):
    """The reason for all this: each micro-batch would be divided by its own number of boxes."""
    model = make_llmdet(dn_cfg=NO_NOISE).train()
    whole = step(model, samples, [(0, 1, 2, 3)])
    model.count_step = lambda _: None
    halves = step(model, samples, [(0, 1), (2, 3)])
    assert abs(halves["losses"]["loss"] / whole["losses"]["loss"] - 1) > 0.01


def test_more_boxes_than_queries_are_counted_as_they_are_matched(make_llmdet, samples):
    model = make_llmdet(num_queries=3)
    totals = model.count_step([[samples(5), samples(0)], [samples(2)]])
    assert (totals.parts, totals.noised, totals.matched, totals.fullest) == (2, 5, 5, 5)


def compare(make: Any, samples: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    model = make(dn_cfg=NO_NOISE).train()
    first, second = ((0,), (1,)) if dist.get_rank() == 0 else ((2,), (3,))
    return step(model, samples, [first, second]), step(model, samples, [first + second])


def test_micro_batches_of_two_processes_give_the_gradients_of_their_batches(
    make_llmdet, samples, tmp_path
):
    for found, expected in run_processes(2, compare, make_llmdet, samples, folder=tmp_path):
        assert_equal(found, expected)
