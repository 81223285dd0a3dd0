"""ResNet in transformers' layout: names of its tensors, and its configuration.

mmdet counts stages from 1 and names the convolutions of a block; transformers counts both from 0
and keeps a convolution and its norm together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmdet.errors import CheckpointError

#: of transformers' files, before every name of the backbone
PREFIX = "model.backbone.conv_encoder.model."

_KINDS = {"conv": "convolution", "bn": "normalization"}
_SHORTCUT = {"0": "convolution", "1": "normalization"}
_STEM = re.compile(r"backbone\.(conv|bn)1\.(\w+)")
_BLOCK = re.compile(r"backbone\.layer(\d+)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))\.(\w+)")
_THEIR_STEM = re.compile(r"embedder\.embedder\.(convolution|normalization)\.(\w+)")
_THEIR_BLOCK = re.compile(
    r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d)|shortcut)\."
    r"(convolution|normalization)\.(\w+)"
)
# What no shape tells, as in the ResNet that transformers has.
_ONLY = {"strides": (1, 2, 2, 2), "dilations": (1, 1, 1, 1), "deep_stem": False, "avg_down": False}


def is_resnet(keys: Mapping[str, Any]) -> bool:
    """Whether these weights of ours have the stem of a ResNet."""
    return "backbone.conv1.weight" in keys and "backbone.bn1.weight" in keys


def to_transformers_name(key: str) -> str | None:
    """Name in transformers' files of a tensor of our ResNet, or None for any other tensor."""
    if found := _STEM.fullmatch(key):
        return f"{PREFIX}embedder.embedder.{_KINDS[found[1]]}.{found[2]}"
    if not (found := _BLOCK.fullmatch(key)):
        return None
    stage, block, kind, number, shortcut, end = found.groups()
    stem = f"{PREFIX}encoder.stages.{int(stage) - 1}.layers.{block}"
    if shortcut:
        return f"{stem}.shortcut.{_SHORTCUT[shortcut]}.{end}"
    return f"{stem}.layer.{int(number) - 1}.{_KINDS[kind]}.{end}"


def to_our_name(key: str) -> str | None:
    """The inverse of :func:`to_transformers_name`."""
    rest = key.removeprefix(PREFIX)
    ours = {theirs: kind for kind, theirs in _KINDS.items()}
    if found := _THEIR_STEM.fullmatch(rest):
        return f"backbone.{ours[found[1]]}1.{found[2]}"
    if not (found := _THEIR_BLOCK.fullmatch(rest)):
        return None
    stage, block, number, kind, end = found.groups()
    stem = f"backbone.layer{int(stage) + 1}.{block}"
    if number is None:
        return f"{stem}.downsample.{int(kind == 'normalization')}.{end}"
    return f"{stem}.{ours[kind]}{int(number) + 1}.{end}"


def resnet_config(shape: Mapping[str, tuple[int, ...]], model: Mapping[str, Any]) -> dict[str, Any]:
    """``backbone_config`` of transformers for a ResNet of these shapes.

    Args:
        shape: of our weights by name.
        model: the ``model`` of our config, for what shapes do not tell.

    Raises:
        CheckpointError: a setting of the backbone that transformers' ResNet does not have.
    """
    settings = model.get("backbone", {})
    for name, value in _ONLY.items():
        given = settings.get(name, value)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise CheckpointError(
                f"transformers' ResNet has {name}={value}, and model.backbone.{name} is {given}"
            )
    blocks = [_blocks(shape, stage) for stage in range(1, 5)]
    depths = [count for count in blocks if count]
    last = "conv3" if "backbone.layer1.0.conv3.weight" in shape else "conv2"
    widths = [
        shape[f"backbone.layer{stage}.0.{last}.weight"][0] for stage in range(1, len(depths) + 1)
    ]
    read = {value[1] for key, value in shape.items() if re.fullmatch(_INPUT, key)}
    stages = [number + 1 for number, width in enumerate(widths) if width in read]
    return {
        "model_type": "resnet",
        "embedding_size": shape["backbone.conv1.weight"][0],
        "hidden_sizes": widths,
        "depths": depths,
        "layer_type": "bottleneck" if last == "conv3" else "basic",
        "downsample_in_bottleneck": last == "conv3" and settings.get("style") == "caffe",
        "out_features": [f"stage{stage}" for stage in stages],
        "out_indices": stages,
    }


_INPUT = r"neck\.convs\.\d+\.conv\.weight"


def _blocks(shape: Mapping[str, tuple[int, ...]], stage: int) -> int:
    pattern = rf"backbone\.layer{stage}\.\d+\.conv1\.weight"
    return sum(re.fullmatch(pattern, key) is not None for key in shape)
