"""Settings that mmengine would ignore in silence: misspelt keys, and protocols that contradict."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from llmdet.errors import ConfigError
from llmdet.evaluation.metrics import LVISFixedAPMetric
from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.registry import METRICS, MODELS
from llmdet.utils.build import find_type
from llmdet.utils.config import type_name, typed_parts
from llmdet.utils.suggest import did_you_mean, misspelling_of

from .compilation import CompileSettings
from .tta import GroundingTTAModel

#: Top-level settings beside the arguments of mmengine's runner.
_BESIDE = (
    "activation_checkpointing",
    "compile",
    "custom_imports",
    "efficient_conv_bn_eval",
    "find_unused_parameters",
    "load_missing",
    "model_wrapper_cfg",
    "schedule_length",
    "strategy",
    "tta_model",
    "tta_pipeline",
    "zero_shot_dataloader",
    "zero_shot_evaluator",
)
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader", "zero_shot_dataloader")
_CLIPPING = (
    "type",
    "max_norm",
    "norm_type",
    "error_if_nonfinite",
    "foreach",
    "clip_value",
)
_HOOKS = (
    "runtime_info",
    "timer",
    "sampler_seed",
    "logger",
    "param_scheduler",
    "checkpoint",
    "visualization",
    "dropped",
    "finite_losses",
    "interrupt",
)


def check_settings(config: Config) -> None:
    """Refuse what the runner would ignore.

    Other top-level names are variables of the config, so that only a misspelling of a known one
    is refused there, and likewise among the hooks.

    Raises:
        ConfigError: a key is unknown or misspelt; names the nearest match.
    """
    known = [*_arguments(Runner.__init__), *_BESIDE]
    _refuse_misspelt(config, known, "the config")
    _refuse_misspelt(_settings(config, "default_hooks"), _HOOKS, "default_hooks")
    loader = [*_arguments(DataLoader.__init__), "num_batch_per_epoch"]
    for name in _LOADERS:
        _refuse_unknown(_settings(config, name), loader, name)
        _check_number(config, f"{name}.batch_size", least=1, whole=True)
        _check_number(config, f"{name}.num_workers", least=0, whole=True)
    _check_run(config)
    environment = _settings(config, "env_cfg")
    _refuse_unknown(
        environment, ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"), "env_cfg"
    )
    _refuse_unknown(
        environment.get("mp_cfg"), ("mp_start_method", "opencv_num_threads"), "env_cfg.mp_cfg"
    )
    _refuse_unknown(config.get("auto_scale_lr"), ("enable", "base_batch_size"), "auto_scale_lr")
    _refuse_unknown(config.get("randomness"), _arguments(Runner.set_randomness), "randomness")
    _check_backends(config)
    CompileSettings.from_config(config.get("compile"))
    check_strategy(config)
    check_fixed_ap(config)


def _check_backends(config: Config) -> None:
    """Refuse what would end a run at its first log, because its package is missing."""
    visualizer = config.get("visualizer") or {}
    names = {backend["type"] for backend in typed_parts(visualizer.get("vis_backends"))}
    if "WandbVisBackend" in names and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            "visualizer.vis_backends: WandbVisBackend needs Weights & Biases: pip install wandb, "
            "or leave it out"
        )


def check_strategy(config: Config) -> None:
    """Refuse what does not work beside a strategy.

    Raises:
        ConfigError: a hook averages weights, the model shall be wrapped by something else or
            compiled too, or DeepSpeed shall look at gradients before it uses them.
    """
    if config.get("strategy") is None:
        return
    hooks = [*typed_parts(config.get("custom_hooks")), *typed_parts(config.get("default_hooks"))]
    if any(type_name(hook) == "EMAHook" for hook in hooks):
        raise ConfigError(
            "EMAHook copies the whole model, which a strategy spreads over processes: leave the "
            "hook or the strategy out"
        )
    if config.get("model_wrapper_cfg") is not None:
        raise ConfigError("model_wrapper_cfg and strategy both wrap the model: leave one out")
    if config.get("compile"):
        raise ConfigError(
            "compile beside a strategy, which exchanges weights while a step runs, was never "
            "tested: leave one out"
        )
    skips = any(hook.get("action") == "skip" for hook in hooks if isinstance(hook, Mapping))
    if skips and type_name(config.strategy) == "DeepSpeed":
        raise ConfigError(
            "FiniteLossHook(action='skip') does not work with DeepSpeed, which has no process see "
            "all gradients before an update: take 'stop', or strategy.type='FSDP2'"
        )


def _check_run(config: Config) -> None:
    """Whether optimizer, loop and hooks have the settings that they read only while training."""
    for name in ("lr", "weight_decay"):
        _check_number(config, f"optim_wrapper.optimizer.{name}", least=0)
    _check_number(config, "optim_wrapper.accumulative_counts", least=1, whole=True)
    _settings(config, "model")
    _settings(config, "train_cfg")
    clip = _settings(config, "optim_wrapper").get("clip_grad")
    _refuse_unknown(clip, _CLIPPING, "optim_wrapper.clip_grad")
    for name in ("max_norm", "clip_value"):
        _check_number(config, f"optim_wrapper.clip_grad.{name}", least=0)
    for name in ("max_iters", "max_epochs", "val_interval"):
        _check_number(config, f"train_cfg.{name}", least=1, whole=True)
    _check_number(config, "randomness.seed", least=0, whole=True)
    hooks = _settings(config, "default_hooks")
    # mmengine's hook would take any other, and fail when it saves the first checkpoint.
    _refuse_unknown(
        hooks.get("checkpoint"),
        ("type", "_scope_", *_arguments(CheckpointHook.__init__)),
        "default_hooks.checkpoint",
    )
    checkpoint = hooks.get("checkpoint")
    if not isinstance(checkpoint, Mapping) or checkpoint.get("interval") != "validation":
        _check_number(config, "default_hooks.checkpoint.interval", least=-1, whole=True)
    _check_number(config, "default_hooks.checkpoint.max_keep_ckpts", least=-1, whole=True)
    _check_number(config, "default_hooks.logger.interval", least=1, whole=True)


def check_fixed_ap(config: Config) -> None:
    """Refuse fixed AP of detections that are limited per image.

    The best boxes of a class over the whole data set may be among those that such a limit cuts.

    Raises:
        ConfigError: an evaluator measures fixed AP, and ``model.test_cfg.limit_per`` is "image",
            or a model of test-time augmentation cuts what it merged, as mmdet's does.
    """
    model = config.get("model") or {}
    detector = model.get("module", model) if isinstance(model, Mapping) else {}
    kind = find_type(MODELS, detector.get("type")) if isinstance(detector, Mapping) else None
    if not (inspect.isclass(kind) and issubclass(kind, GroundingDINO)):
        return
    protocol = detector.get("test_cfg")
    if not isinstance(protocol, Mapping | None):
        return  # the detector says so
    if (protocol or {}).get("limit_per", "image") != "chunk":
        limit = "model.test_cfg limits those of an image over all classes together; set "
        limit += "model.test_cfg.limit_per='chunk'"
    elif detector is not model and not _merges_all(model.get("type")):
        limit = f"{model.get('type')} cuts those of an image where it merges its views; set "
        limit += "tta_model=dict(type='GroundingTTAModel')"
    else:
        return
    for name in ("val_evaluator", "test_evaluator", "zero_shot_evaluator"):
        for evaluator in typed_parts(config.get(name)):
            metric = find_type(METRICS, evaluator["type"])
            if inspect.isclass(metric) and issubclass(metric, LVISFixedAPMetric):
                raise ConfigError(
                    f"{name}: {metric.__name__} counts the best boxes of each class over the "
                    f"whole data set, and {limit}"
                )


def _merges_all(kind: Any) -> bool:
    """Whether a model of test-time augmentation keeps all boxes where the detector does."""
    built = find_type(MODELS, kind)
    return inspect.isclass(built) and issubclass(built, GroundingTTAModel)


def _arguments(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def _refuse_misspelt(settings: Iterable[str], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in settings:
        meant = None if key in known else misspelling_of(key, known)
        if meant:
            raise ConfigError(f"{where} has {key!r}, which nothing reads; did you mean {meant!r}?")


def _settings(config: Config, key: str) -> Mapping[str, Any]:
    """A part of the config, empty where it has none."""
    part = config.get(key)
    if part is not None and not isinstance(part, Mapping):
        raise ConfigError(f"{key} is {part!r}; give its settings as a dict")
    return part or {}


def _check_number(config: Config, key: str, least: int, whole: bool = False) -> None:
    """Refuse what is no finite number of at least ``least``; a key that is absent is right."""
    *parts, name = key.split(".")
    part: Any = config
    for outer in parts:
        part = part.get(outer) if isinstance(part, Mapping | Config) else None
    if not isinstance(part, Mapping) or part.get(name) is None:
        return
    value = part[name]
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right or not least <= value < math.inf:
        kind = "whole number" if whole else "number"
        raise ConfigError(f"{key} is {value!r}; give a {kind} of at least {least}")


def _refuse_unknown(settings: Any, known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in settings if isinstance(settings, Mapping) else ():
        if key not in known:
            raise ConfigError(f"{where} has no setting {key!r}; {did_you_mean(key, known)}")
