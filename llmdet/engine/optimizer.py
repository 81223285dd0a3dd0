"""Optimizers with one group per set of hyperparameters, fused where the device can."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIMIZERS
from torch import nn

from llmdet.errors import ConfigError
from llmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from llmdet.utils.suggest import did_you_mean, misspelling_of

logger = logging.getLogger(__name__)

#: What a rule of ``paramwise_cfg.custom_keys`` multiplies; its other entries are options.
_FACTORS = ("lr_mult", "decay_mult")
_PARAMWISE = (
    "custom_keys",
    "bias_lr_mult",
    "bias_decay_mult",
    "norm_decay_mult",
    "flat_decay_mult",
    "dwconv_decay_mult",
    "dcn_offset_lr_mult",
    "bypass_duplicate",
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name="DefaultOptimWrapperConstructor")
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, with equal hyperparameters in one group.

    mmengine makes a group of each parameter, which costs a kernel launch each and prevents fused
    updates. What a parameter gets is decided by mmengine's rules; parameters that do not train
    are left out, and a parameter that two modules share is updated once.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of ``model`` and its wrapper.

        Raises:
            ConfigError: ``paramwise_cfg`` has an unknown key, or one that all but names a part
                of the model.
        """
        model = getattr(model, "module", model)
        self._check_paramwise(model)
        settings = dict(self.optimizer_cfg)
        kind = settings["type"]
        if isinstance(kind, str):
            with OPTIMIZERS.switch_scope_and_registry(None) as registry:
                kind = registry.get(kind)
        accepted = inspect.signature(kind).parameters if kind is not None else {"params": None}
        groups = self._groups(model)
        if "fused" in accepted and _can_be_fused(settings, groups):
            settings["fused"] = True
        for group in groups:
            _report(group, settings)
        settings[next(iter(accepted))] = groups
        wrapper = {"type": "OptimWrapper", **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(wrapper, default_args={"optimizer": OPTIMIZERS.build(settings)})

    def _groups(self, model: nn.Module) -> list[dict[str, Any]]:
        each: list[dict[str, Any]] = []
        current = MMLogger.get_current_instance()
        level = current.level
        current.setLevel(logging.CRITICAL)  # it would write two lines for each parameter
        try:
            self.add_params(each, model)
        finally:
            current.setLevel(level)
        shared = {"lr": self.base_lr, "weight_decay": self.base_wd}
        shared = {key: value for key, value in shared.items() if value is not None}
        groups: dict[str, dict[str, Any]] = {}
        seen: set[int] = set()
        for single in each:
            (parameter,) = single.pop("params")
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            options = shared | {k: v for k, v in single.items() if k not in _FACTORS}
            key = repr(sorted(options.items()))
            groups.setdefault(key, {**options, "params": []})["params"].append(parameter)
        return list(groups.values())

    def _check_paramwise(self, model: nn.Module) -> None:
        for key in self.paramwise_cfg:
            if key not in _PARAMWISE:
                raise ConfigError(
                    f"optim_wrapper.paramwise_cfg has no setting {key!r}; "
                    f"{did_you_mean(key, _PARAMWISE)}"
                )
        names = [name for name, _ in model.named_parameters()]
        parts = sorted({part for name in names for part in name.split(".")})
        for key in self.paramwise_cfg.get("custom_keys", {}):
            meant = misspelling_of(key, parts)
            if meant and not any(key in name for name in names):
                raise ConfigError(
                    f"optim_wrapper.paramwise_cfg.custom_keys: {key!r} is in no parameter's name; "
                    f"did you mean {meant!r}?"
                )


def _can_be_fused(settings: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all parameters are on CUDA or the CPU and the config chose no implementation."""
    if {"fused", "foreach", "capturable", "differentiable"} & set(settings):
        return False
    parameters = [parameter for group in groups for parameter in group["params"]]
    return bool(parameters) and all(
        p.device.type in ("cuda", "cpu") and torch.is_floating_point(p) for p in parameters
    )


def _report(group: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    options = {key: value for key, value in group.items() if key != "params"}
    logger.info(
        "%s%s: %d tensors, %s numbers, %s",
        "fused " if settings.get("fused") else "",
        settings["type"],
        len(group["params"]),
        f"{sum(parameter.numel() for parameter in group['params']):,}",
        ", ".join(f"{key} {value}" for key, value in options.items()),
    )
