"""Build our detector from a fixture folder and watch what flows through it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import Tensor, nn

from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.quirks import Quirks
from llmdet.registry import MODELS
from llmdet.utils.construct import settings_of


def read_json(path: Path) -> Any:
    """Parse a JSON file."""
    return json.loads(path.read_text())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Load a flat file of tensors."""
    return torch.load(path, weights_only=True)


def all_quirks() -> dict[str, bool]:
    """Every deviation of the original switched on."""
    return {field.name: True for field in fields(Quirks)}


def build_detector(folder: Path, config: Mapping[str, Any]) -> GroundingDINO:
    """Build the recorded model with every quirk of the original and load its weights strictly.

    Args:
        folder: holds ``bert/`` and ``state_dict.pt``.
        config: settings of the original; those of the language model are left aside.
    """
    known = settings_of(GroundingDINO)
    settings = {key: value for key, value in config.items() if key in known}
    settings["language_model"] = {**config["language_model"], "name": str(folder / "bert")}
    settings["quirks"] = all_quirks()
    model = MODELS.build(ConfigDict(type="GroundingDINO", **settings))
    weights = read_tensors(folder / "state_dict.pt")
    in_model = model.state_dict()
    # Language weights of complete models have no place in the detector alone.
    model.load_state_dict({k: v.clone() for k, v in weights.items() if k in in_model}, strict=True)
    return model


def preprocess(
    model: GroundingDINO, images: Mapping[str, Tensor], samples: list[DetDataSample], training: bool
) -> Tensor:
    """Normalise and pad HWC BGR uint8 images; returns [B, 3, H, W]."""
    pictures = [image.permute(2, 0, 1) for image in images.values()]
    return model.data_preprocessor({"inputs": pictures, "data_samples": samples}, training)[
        "inputs"
    ]


class Trace:
    """Keeps what named modules and methods returned, call by call.

    Use it as a context manager around a run.
    """

    def __init__(self, model: GroundingDINO) -> None:
        self.model = model
        self.calls: dict[str, list[Any]] = defaultdict(list)
        self._undo: list[Any] = []

    def __enter__(self) -> Trace:
        model, encoder = self.model, self.model.encoder
        last = model.decoder.num_layers
        self._watch("backbone", model.backbone)
        self._watch("neck", model.neck)
        self._watch("bert", model.language_model)
        self._watch("text_feat_map", model.text_feat_map)
        self._watch("fusion", encoder.fusion_layers[0])
        self._watch("text_layer", encoder.text_layers[0])
        for index, layer in enumerate(encoder.layers):
            self._watch(f"layer{index}", layer)
        self._watch("encoder", encoder)
        self._watch("output_memory", model.memory_trans_norm)
        self._watch("two_stage", model.bbox_head.cls_branches[last])
        self._watch("decoder", model.decoder, inputs=True)
        self._watch("head", model.bbox_head)
        for owner, name in ((model, "propose"), (model.bbox_head, "match")):
            self._wrap(owner, name)
        return self

    def __exit__(self, *_: object) -> None:
        for undo in self._undo:
            undo()

    def _watch(self, name: str, module: nn.Module, inputs: bool = False) -> None:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.calls[name].append(output)
            if inputs:
                self.calls[f"{name}_in"].append(args)

        self._undo.append(module.register_forward_hook(hook).remove)

    def _wrap(self, owner: nn.Module, name: str) -> None:
        method = getattr(owner, name)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            self.calls[name].append(result)
            return result

        setattr(owner, name, recorded)
        self._undo.append(lambda: delattr(owner, name))
