"""The language model begins when it is told to."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from torch import nn

from llmdet.datasets.sample import GroundingSample, grounding_of
from llmdet.engine import LateCaptionsHook
from llmdet.errors import ConfigError
from llmdet.prompts.conversation import ask_of_image


@pytest.fixture
def runner():
    """A detector with a language model, after steps whose gradients were ones."""
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("backbone", "lmm")})
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    model.lmm, model.backbone = model["lmm"], model["backbone"]
    return SimpleNamespace(
        model=model, optim_wrapper=SimpleNamespace(optimizer=optimizer), max_iters=20
    )


def batch():
    sample = DetDataSample(metainfo={"img_path": "a.jpg"})
    said = GroundingSample(conversations=(ask_of_image("A red star."),), tags=("red star",))
    sample.set_metainfo({"grounding": said})
    return {"data_samples": [sample]}


@pytest.mark.parametrize(("iteration", "conversations"), [(0, 0), (4, 0), (5, 1), (6, 1)])
def test_conversations_are_left_out_until_captions_begin(runner, iteration, conversations):
    runner.iter, data = iteration, batch()
    LateCaptionsHook(begin=0.25).before_train_iter(runner, 0, data)
    grounding = grounding_of(data["data_samples"][0])
    assert len(grounding.conversations) == conversations
    assert grounding.tags == ("red star",)


@pytest.mark.parametrize(("iteration", "forgotten"), [(4, False), (5, True), (6, False)])
def test_the_language_model_starts_with_fresh_statistics(runner, iteration, forgotten):
    runner.iter = iteration
    LateCaptionsHook(begin=0.25).before_train_iter(runner, 0, batch())
    state = runner.optim_wrapper.optimizer.state
    assert (runner.model.lmm.weight in state) != forgotten
    assert runner.model.backbone.weight in state


def test_begin_is_a_share_of_the_run():
    with pytest.raises(ConfigError, match="begin is 450; give a share"):
        LateCaptionsHook(begin=450)
