"""From a config to a model that detects, and to the pipeline that prepares its images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.transforms import Compose
from mmengine.config import ConfigDict
from mmengine.model import BaseModel

from llmdet.apis.captions import keep_language_model
from llmdet.apis.read_images import ImagePipeline
from llmdet.errors import ConfigError
from llmdet.models.detectors.settings import leave_learned_classes
from llmdet.registry import MODELS, TRANSFORMS
from llmdet.utils.build import checked_builds
from llmdet.utils.config import leaf_datasets, type_name

logger = logging.getLogger(__name__)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of this name; "auto" is CUDA where there is one.

    Raises:
        ConfigError: there is no such device here.
    """
    automatic = device == "auto"
    name = ("cuda" if torch.cuda.is_available() else "cpu") if automatic else device
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"There is no device {device!r}: write cpu, cuda or cuda:1.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"There is no device {device}: PyTorch sees no CUDA GPU here.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"There is no device {device}: PyTorch sees {torch.cuda.device_count()} GPUs."
        )
    logger.info("Running on %s%s.", chosen, ", chosen automatically" if automatic else "")
    return chosen


def build_model(settings: ConfigDict, captions: bool, dtype: str) -> BaseModel:
    """Build a config's model for looking at single images; changes ``settings``.

    Args:
        settings: the ``model`` of a config.
        captions: keep its language model.
        dtype: of matrix products; "auto" keeps ``test_cfg.dtype``.

    Raises:
        ConfigError: settings do not fit or are of no detector, or captions have no language model.
    """
    if type_name(settings) == "RegionLMM":
        raise ConfigError(
            "This config has a RegionLMM, which answers questions and is no detector: take the "
            "config of one, such as configs/grounding_dino_swin_t.py, or ask it by RegionChat."
        )
    if captions:
        keep_language_model(settings)
    elif settings.get("lmm") is not None:
        settings.lmm = None
    settings.test_cfg = _test_settings(settings.get("test_cfg"))
    settings.test_cfg.limit_per = "image"  # people look at images; only fixed AP wants chunks
    if dtype != "auto":
        settings.test_cfg.dtype = dtype
    with checked_builds():
        return MODELS.build(settings)


def _test_settings(given: Any) -> ConfigDict:
    """A ``test_cfg`` that can be changed; an empty one is as good as none."""
    if not given:
        return ConfigDict()
    if not isinstance(given, Mapping):
        raise ConfigError(f"model.test_cfg={given!r} must be a dict of settings, such as {{}}.")
    return ConfigDict(given)


def leave_to_checkpoint(settings: ConfigDict) -> None:
    """Read no weights of a text encoder that a checkpoint brings (440 MB for BERT base), and take
    the classes that it has learned."""
    leave_learned_classes(settings)
    encoder = settings.get("language_model") or {}
    if encoder.get("type") == "BertModel":
        encoder["pretrained"] = False


def test_steps(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of a config's test pipeline without annotations.

    Where the config is tested on several data sets, they are those of the first.

    Raises:
        ConfigError: it has none, or none that loads an image.
    """
    datasets = leaf_datasets((config.get("test_dataloader") or {}).get("dataset") or {})
    pipelines = [leaf["pipeline"] for leaf in datasets if "pipeline" in leaf]
    if not pipelines:
        raise ConfigError("The config has no test_dataloader.dataset.pipeline to load images.")
    kinds = [(type_name(step), step) for step in pipelines[0]]
    if not any(kind == "LoadImageFromFile" for kind, _ in kinds):
        raise ConfigError("The config's test pipeline has no LoadImageFromFile.")
    return [
        dict(step)
        for kind, step in kinds
        if kind == "LoadImageFromFile" or not kind.startswith("Load")
    ]


def build_pipeline(steps: Sequence[Mapping[str, Any]]) -> ImagePipeline:
    """Build the steps of :func:`test_steps`."""
    first = [type_name(step) for step in steps].index("LoadImageFromFile") + 1
    return ImagePipeline(_compose(steps[:first]), _compose(steps[first:]))


def _compose(steps: Sequence[Mapping[str, Any]]) -> Compose:
    return Compose([TRANSFORMS.build(dict(step)) for step in steps])
