"""One group per set of hyperparameters, with what mmengine gives each parameter."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from llmdet.engine import GroupedOptimWrapperConstructor
from llmdet.errors import ConfigError


class Model(nn.Module):
    """Every kind of module that a rule of paramwise_cfg is about."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)
        self.language_model = nn.ModuleDict({"backbone": nn.Linear(2, 2)})
        self.scale = nn.Parameter(torch.ones(3))
        self.absolute_pos_embed = nn.Parameter(torch.ones(2, 2))


RULES = [
    {},
    {"norm_decay_mult": 0.0},
    {"bias_lr_mult": 2.0, "bias_decay_mult": 0.0},
    {"flat_decay_mult": 0.0, "dwconv_decay_mult": 0.5},
    {
        "custom_keys": {
            "absolute_pos_embed": {"decay_mult": 0.0},
            "backbone": {"lr_mult": 0.1},
            "language_model": {"lr_mult": 0.1},
            "head": {"lr_mult": 3.0, "decay_mult": 2.0, "betas": (0.8, 0.9)},
        },
        "norm_decay_mult": 0.0,
        "bias_decay_mult": 0.25,
    },
]


def settings(**changes) -> dict:
    return {
        "type": "OptimWrapper",
        "optimizer": {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.1, **changes},
        "clip_grad": {"max_norm": 1.0},
    }


def by_parameter(optimizer: torch.optim.Optimizer) -> dict[int, dict]:
    ignored = ("params", "lr_mult", "decay_mult", "fused", "foreach")
    return {
        id(parameter): {key: value for key, value in group.items() if key not in ignored}
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("rules", RULES)
def test_every_parameter_gets_what_mmengine_gives_it(rules):
    model = Model()
    theirs = DefaultOptimWrapperConstructor(settings(), rules)(model)
    ours = GroupedOptimWrapperConstructor(settings(), rules)(model)
    expected = by_parameter(theirs.optimizer)
    assert by_parameter(ours.optimizer) == expected
    assert set(expected) == {id(parameter) for parameter in model.parameters()}
    assert ours.clip_grad_kwargs == theirs.clip_grad_kwargs


@pytest.mark.parametrize(("rules", "count"), zip(RULES, [1, 2, 3, 3, 5], strict=True))
def test_equal_hyperparameters_share_a_group(rules, count):
    groups = GroupedOptimWrapperConstructor(settings(), rules)(Model()).optimizer.param_groups
    options = [repr({k: v for k, v in group.items() if k != "params"}) for group in groups]
    assert len(set(options)) == len(options) == count


def test_steps_are_those_of_one_group_per_parameter():
    inputs = torch.rand(2, 4)
    weights = []
    for constructor in (DefaultOptimWrapperConstructor, GroupedOptimWrapperConstructor):
        torch.manual_seed(0)
        model = Model()
        wrapper = constructor(settings(), RULES[-1])(model)
        for _ in range(5):
            wrapper.update_params(model.head(model.norm(inputs)).square().sum())
        weights.append([value.clone() for value in model.parameters()])
    for mine, theirs in zip(*weights, strict=True):
        assert torch.equal(mine, theirs)


def test_what_does_not_train_is_left_out():
    model = Model()
    model.backbone.requires_grad_(False)
    for rules in ({}, RULES[-1]):
        optimizer = GroupedOptimWrapperConstructor(settings(), rules)(model).optimizer
        trained = {id(value) for value in model.parameters() if value.requires_grad}
        assert set(by_parameter(optimizer)) == trained


def test_a_shared_parameter_is_updated_once():
    model = Model()
    model.tied = nn.Linear(4, 2)
    model.tied.weight = model.head.weight
    optimizer = GroupedOptimWrapperConstructor(settings(), RULES[-1])(model).optimizer
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(parameters) == len(set(map(id, parameters))) == len(list(model.parameters()))


def test_a_config_may_choose_the_implementation():
    for chosen in ({"fused": True}, {"foreach": True}):
        optimizer = GroupedOptimWrapperConstructor(settings(**chosen), {})(Model()).optimizer
        assert all(optimizer.defaults[key] is value for key, value in chosen.items())


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
        ),
    ],
)
def test_updates_are_fused(device):
    optimizer = GroupedOptimWrapperConstructor(settings(), {})(Model().to(device)).optimizer
    assert optimizer.defaults["fused"]


def test_parameters_elsewhere_are_not_fused():
    optimizer = GroupedOptimWrapperConstructor(settings(), {})(Model().to("meta")).optimizer
    assert not optimizer.defaults["fused"]


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"norm_decay_mul": 0.0}, "'norm_decay_mul'; did you mean 'norm_decay_mult'"),
        ({"custom_keys": {"bakbone": {"lr_mult": 0.1}}}, "'bakbone'.*did you mean 'backbone'"),
    ],
)
def test_a_misspelt_rule_is_an_error(rules, sentence):
    with pytest.raises(ConfigError, match=sentence):
        GroupedOptimWrapperConstructor(settings(), rules)(Model())


def test_a_rule_for_a_part_that_other_models_have_is_none():
    rules = {"custom_keys": {"relative_position": {"decay_mult": 0.0}}}
    GroupedOptimWrapperConstructor(settings(), rules)(Model())
