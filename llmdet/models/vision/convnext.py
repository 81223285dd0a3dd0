"""ConvNeXt as a tower: the maps of its stages, as ChatRex reads them (arXiv 2411.18363, 3.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from llmdet.checkpoint.files import read_part
from llmdet.datasets.views import CLIP_MEAN, CLIP_STD, ViewSettings
from llmdet.errors import CheckpointError, ConfigError
from llmdet.models.hub_weights import read_model
from llmdet.registry import MODELS

from .encoder_tower import EncoderTower
from .transformers_tower import read_vision_config
from .views import TowerOutput, View

#: Where files of open_clip, and of models around them, keep the stem and the stages.
_PREFIXES = ("visual.trunk.", "model.vision_tower_aux.vision_", "vision_tower_aux.vision_")
#: Names there -> names of transformers; the first that fits wins. What fits none is not read.
_NAMES = (
    (r"stem\.0\.(.+)", r"embeddings.patch_embeddings.\1"),
    (r"stem\.1\.(.+)", r"embeddings.layernorm.\1"),
    (r"stages\.(\d+)\.downsample\.(\d)\.(.+)", r"encoder.stages.\1.downsampling_layer.\2.\3"),
    (r"(stages\.\d+)\.blocks\.(\d+)\.conv_dw\.(.+)", r"encoder.\1.layers.\2.dwconv.\3"),
    (r"(stages\.\d+)\.blocks\.(\d+)\.norm\.(.+)", r"encoder.\1.layers.\2.layernorm.\3"),
    (r"(stages\.\d+)\.blocks\.(\d+)\.mlp\.fc(\d)\.(.+)", r"encoder.\1.layers.\2.pwconv\3.\4"),
    (r"(stages\.\d+)\.blocks\.(\d+)\.gamma", r"encoder.\1.layers.\2.layer_scale_parameter"),
)


@MODELS.register_module()
class ConvNextTower(EncoderTower):
    """What the stages of a ConvNeXt make of a view, from the stem's stride on each half as large.

    Args:
        model: folder or hub id of a ConvNeXt of transformers, or fields of its configuration.
        weights: a file of open_clip's CLIP with a ConvNeXt, or of ChatRex or RexSeek, in place of
            the folder's weights.
        view: how the image is fitted; by default a square of the configuration's ``image_size`` in
            CLIP's colours.
        pretrained: with False, weights are random.
        frozen: with False the encoder trains, which wants ``dtype="float32"``.
        checkpoint: recompute stages in the backward pass instead of storing them.
        dtype: of the weights; default: bfloat16 where CUDA is available and it is frozen, else
            float32.

    Raises:
        ConfigError: it is no ConvNeXt, or it is to train in half precision.
        CheckpointError: weights are missing, or of another size.
    """

    #: Where the weights are that llmdet.checkpoint.frozen leaves out of checkpoints.
    source_part = "encoder"

    def __init__(
        self,
        model: str | Mapping[str, Any],
        weights: str | None = None,
        view: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        frozen: bool = True,
        checkpoint: bool = False,
        dtype: str | None = None,
    ) -> None:
        super().__init__(frozen=frozen, dtype=dtype)
        read = model if pretrained and weights is None else None
        self.encoder: Any = build_convnext(model, read=isinstance(read, str), dtype=self.dtype)
        self.source = read if isinstance(read, str) else None
        self.source_kind = "ConvNeXt"
        if pretrained and weights is not None:
            _load(self.encoder, weights)
            self.source, self.source_kind = weights, "ConvNeXt of open_clip"
        self.source_names = tuple(self.encoder.state_dict())
        config = self.encoder.config
        side = int(config.image_size)
        self.view = ViewSettings(
            **{"size": (side, side), "mean": CLIP_MEAN, "std": CLIP_STD, **(view or {})}
        )
        #: Width of each map, and of the last.
        self.map_dims = tuple(config.hidden_sizes)
        self.dims = self.map_dims[-1]
        self.checkpoint = checkpoint
        if frozen:
            self.requires_grad_(False)
        self.train(False)

    def forward(self, view: View) -> TowerOutput:
        """The maps of all stages, fine to coarse; the last one's pixels are the tokens."""
        with self.reading(view.pixels.device):
            maps = self._maps(view.pixels.to(self.dtype))
        ratios = torch.ones(len(view.pixels), len(maps), 2, device=view.pixels.device)
        return TowerOutput(maps[-1].flatten(2).transpose(1, 2), maps, ratios, view.frame)

    def _maps(self, pixels: Tensor) -> tuple[Tensor, ...]:
        feat, maps = self.encoder.embeddings(pixels), []
        for stage in self.encoder.encoder.stages:
            if self.checkpoint and self.training:
                feat = recompute(stage, feat, use_reentrant=False)
            else:
                feat = stage(feat)
            maps.append(feat)
        return tuple(maps)


def transformers_name(name: str) -> str | None:
    """The name of a tensor of timm's ConvNeXt in transformers' one; None for what is not read."""
    for theirs, ours in _NAMES:
        if found := re.fullmatch(theirs, name):
            return found.expand(ours)
    return None


def build_convnext(model: str | Mapping[str, Any], *, read: bool = True, dtype: torch.dtype) -> Any:
    """A ConvNeXt of transformers without the norm of its pooled output, which nothing reads.

    Args:
        model: as of :class:`ConvNextTower`.
        read: its weights; else they are random.
        dtype: of the weights.
    """
    from transformers import AutoModel

    config = read_vision_config(model)
    if config.model_type != "convnext":
        raise ConfigError(f"tower.model={model!r} is a {config.model_type}, no ConvNeXt")
    if read:
        name = str(model)
        encoder, _ = read_model(AutoModel, name, config, setting="tower", keys={}, dtype=dtype)
    else:
        encoder = AutoModel.from_config(config, dtype=dtype)
    encoder.layernorm = nn.Identity()
    return encoder


def read_open_clip(weights: str) -> dict[str, Tensor]:
    """The tensors of a file of open_clip's that a :class:`ConvNextTower` has, by its names."""
    read = {transformers_name(name): value for name, value in read_part(weights, _PREFIXES).items()}
    return {name: value for name, value in read.items() if name is not None}


def _load(encoder: nn.Module, weights: str) -> None:
    read = read_open_clip(weights)
    here = encoder.state_dict()
    problems = [
        f"{name} is {tuple(value.shape)} here and "
        f"{'missing' if name not in read else tuple(read[name].shape)} there"
        for name, value in here.items()
        if name not in read or read[name].shape != value.shape
    ]
    problems += [f"{name} is missing here" for name in read if name not in here]
    if problems:
        raise CheckpointError(
            f"tower.weights='{weights}' does not fit the ConvNeXt of tower.model: {problems[0]}"
            f" ({len(problems)} of {len(here)} tensors)"
        )
    encoder.load_state_dict({name: read[name] for name in here})
