"""What a step of a recorded GLaMM costs, and where that pulls its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from llmdet.checkpoint.systems.glamm import glamm_to_llmdet
from llmdet.models.systems.region_lmm import RegionLMM
from llmdet.models.vision.views import View
from llmdet.testing.parity.rows import Row, compare_number, compare_tensor

Losses = Callable[[], dict[str, Tensor]]
#: Losses agree within this part of their value.
LOSSES = 1e-5
#: By how much of their value weights are moved to see what rounding does, and how often.
_ROUNDING = 1e-6
_DRAWS = 6


def compare_losses(
    model: RegionLMM,
    values: Mapping[str, Any],
    expected: Mapping[str, Tensor],
    inputs: Mapping[str, View],
    samples: Sequence[DetDataSample],
) -> Iterator[Row]:
    """Compare losses, norms of gradients and some gradients.

    Args:
        model: of which they are.
        values: what is recorded of a step, with ``losses`` and perhaps ``grad_norms``.
        expected: gradients, under ``grad.`` and the original's names.
        inputs, samples: what the step reads.
    """

    def compute() -> dict[str, Tensor]:
        return model.loss(inputs, samples)

    losses = compute()
    total = torch.stack(list(losses.values())).sum()
    ours = {
        "loss": total,
        "ce_loss": losses["loss_lmm"],
        "mask_bce_loss": losses["loss_mask"],
        "mask_dice_loss": losses["loss_dice"],
        "mask_loss": losses["loss_mask"] + losses["loss_dice"],
    }
    for name, value in values["losses"].items():
        yield compare_number(f"losses.{name}", value, float(ours[name].detach()), LOSSES)
    if not values.get("grad_norms"):
        return
    gradients = _gradients(model, total, list(values["grad_norms"]))
    yield from _norms(model, values["grad_norms"], gradients, compute)
    for name, value in expected.items():
        if name.startswith("grad."):
            yield compare_tensor(name, value, gradients[name.removeprefix("grad.")])


def _gradients(model: RegionLMM, loss: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Gradients under the original's names, of those weights that have one."""
    model.zero_grad()
    loss.backward()
    there = glamm_to_llmdet({name: torch.tensor(number) for number, name in enumerate(names)})
    found = {names[int(number)]: model.get_parameter(here).grad for here, number in there.items()}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def _norms(
    model: RegionLMM,
    expected: Mapping[str, float | None],
    gradients: Mapping[str, Tensor],
    compute: Losses,
) -> Iterator[Row]:
    """Norms of gradients.

    Signs in front of the region encoder's ReLUs that rounding turns make gradients jump. A norm
    that is farther from the recorded one than usual must lie within what it moves when all weights
    move by about as much as they were rounded; what is nothing beside the largest norm is nothing.
    """
    ours = {name: float(gradient.norm()) for name, gradient in gradients.items()}
    nothing = torch.finfo(torch.float32).eps * max(ours.values())
    rows = {name: compare_number(name, norm, ours.get(name)) for name, norm in expected.items()}
    moved: list[dict[str, float]] = []
    for name, row in rows.items():
        norm, mine = expected[name], ours.get(name)
        if not row.passed and norm is not None and mine is not None:
            passed = max(norm, mine) <= nothing
            if not passed:
                moved = moved or _moved_norms(model, list(expected), compute)
                passed = abs(norm - mine) <= 2 * max(abs(each[name] - mine) for each in moved)
            row = replace(row, passed=passed, note="within what rounding moves")
        yield replace(row, name=f"grad_norms.{name}")


def _moved_norms(model: RegionLMM, names: Sequence[str], compute: Losses) -> list[dict[str, float]]:
    """Norms of gradients with weights that are moved a little, a few times."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    kept = [weight.detach().clone() for weight in weights]
    found = []
    for seed in range(_DRAWS):
        numbers = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                noise = torch.randn(value.shape, generator=numbers)
                weight.copy_(value * (1 + _ROUNDING * noise))
        loss = torch.stack(list(compute().values())).sum()
        gradients = _gradients(model, loss, names)
        found.append({name: float(gradient.norm()) for name, gradient in gradients.items()})
    with torch.no_grad():
        for weight, value in zip(weights, kept, strict=True):
            weight.copy_(value)
    return found
