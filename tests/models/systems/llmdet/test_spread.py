"""LLMDet spread over processes, some of which have nothing for the language model to say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import distributed as dist

from llmdet.engine.scalars import DeferredOptimWrapper
from llmdet.engine.strategies import FSDP2, DeepSpeed
from llmdet.models.language.language_model import LanguageModel
from llmdet.testing.processes import run_processes
from llmdet.testing.spread import import_deepspeed

#: What the two processes train on: the second has no captions in one step, no boxes in the next.
STEPS = (
    ({"boxes": 2}, {"boxes": 3, "image": False, "regions": False}),
    ({"boxes": 1, "image": False}, {"boxes": 0, "image": True, "regions": False}),
)


def gradients(model: Any, samples: Any, spread: bool) -> dict[str, Any]:
    """Losses of this process and gradients averaged over all, of every step."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    wrapper = OptimWrapper(optimizer)
    found: dict[str, Any] = {"losses": [], "gradients": []}
    for step, given in enumerate(STEPS):
        torch.manual_seed(step)
        images = torch.rand(1, 3, 64, 64)
        sample = samples(**given[dist.get_rank()])
        batch = {"inputs": images, "data_samples": [sample], "mode": "loss"}
        with wrapper.optim_context(model):
            losses = model(**batch)
        total, logged = model.parse_losses(losses)
        total.backward()
        found["losses"].append({name: float(value) for name, value in logged.items()})
        found["gradients"].append(
            {
                name: whole(parameter.grad, spread)
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            }
        )
        optimizer.step()
        optimizer.zero_grad()
    return found


def whole(gradient: torch.Tensor, spread: bool) -> torch.Tensor:
    if spread:
        return gradient.full_tensor()
    dist.all_reduce(gradient)
    return gradient.div_(dist.get_world_size()).clone()


def compare(make: Any, samples: Any, lmm: dict[str, Any]) -> dict[str, Any]:
    plain = make(lmm=lmm).train()
    expected = gradients(plain, samples, spread=False)
    model = make(lmm=lmm).train()
    names = list(model.state_dict())
    numbers = sum(p.numel() for p in model.parameters())
    model = FSDP2().spread(model)
    assert list(model.state_dict()) == names
    assert sum(p.to_local().numel() for p in model.parameters()) < 0.6 * numbers
    assert next(m for m in model.modules() if isinstance(m, LanguageModel)).in_every_step
    return {"expected": expected, "found": gradients(model, samples, spread=True)}


@pytest.mark.parametrize(
    "lmm",
    [{"checkpoint": True}, {"frozen": False, "lora": None}],
    ids=["LoRA, recomputed", "trained whole"],
)
def test_losses_and_gradients_are_those_of_whole_models(make_llmdet, samples, lmm, tmp_path):
    for result in run_processes(2, compare, make_llmdet, samples, lmm, folder=tmp_path):
        expected, found = result["expected"], result["found"]
        torch.testing.assert_close(found["losses"], expected["losses"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["gradients"], expected["gradients"], rtol=1e-4, atol=1e-6)


def train(model: Any, wrapper: Any, samples: Any) -> list[dict[str, float]]:
    """Losses of this process in four batches, of which two make a step."""
    losses = []
    for step, given in enumerate((*STEPS, *STEPS)):
        torch.manual_seed(step)
        sample = samples(**given[dist.get_rank()])
        sample.set_metainfo({"batch_input_shape": (64, 64)})
        data = {"inputs": [torch.rand(3, 64, 64) * 255], "data_samples": [sample]}
        logged = model.train_step(data, wrapper)
        losses.append({name: float(value) for name, value in logged.items()})
    return losses


def compare_zero(make: Any, samples: Any, lmm: dict[str, Any]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in ("expected", "found"):
        model: Any = make(lmm=lmm).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        wrapper: Any = DeferredOptimWrapper(
            torch.optim.SGD(trained, lr=0.1, momentum=0.9),
            accumulative_counts=2,
            clip_grad={"max_norm": 1.0},
        )
        if name == "expected":
            wrapped: Any = MMDistributedDataParallel(model)
        else:
            strategy = DeepSpeed()
            wrapped, wrapper = strategy.attach(strategy.spread(model), wrapper)
        results[name] = train(wrapped, wrapper, samples)
        weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if name == "found":
            results["weights"] = strategy.gather(weights)
        else:
            results["expected weights"] = {n: p.detach() for n, p in weights.items()}
    return results


def test_accumulated_steps_with_zero_are_those_of_whole_models(make_llmdet, samples, tmp_path):
    import_deepspeed()
    run = (2, compare_zero, make_llmdet, samples, {"checkpoint": True})
    results = run_processes(*run, folder=tmp_path)
    for result in results:
        torch.testing.assert_close(result["found"], result["expected"], rtol=1e-5, atol=1e-6)
    weights = results[0]["weights"], results[0]["expected weights"]
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
