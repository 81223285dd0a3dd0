"""Image encoders of transformers as towers: CLIP and SigLIP, of whatever size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llmdet.datasets.views import CLIP_MEAN, CLIP_STD, SIGLIP_MEAN, SIGLIP_STD, ViewSettings
from llmdet.errors import ConfigError
from llmdet.models.hub_weights import read_model
from llmdet.registry import MODELS
from llmdet.utils.hub import hub_options

from .encoder_tower import EncoderTower
from .views import TowerOutput, View

#: What the image encoders that we know were trained to see: colours, and the resizing.
_COLOURS = {
    "clip_vision_model": {"mean": CLIP_MEAN, "std": CLIP_STD},
    "siglip_vision_model": {"mean": SIGLIP_MEAN, "std": SIGLIP_STD},
}
#: Where whole models keep their image encoder.
_KEYS = {r"^(model\.)?vision_tower\.(vision_model\.)?": "", r"^vision_model\.": ""}


@MODELS.register_module()
class TransformersTower(EncoderTower):
    """CLIP's or SigLIP's image encoder, read at one or more of its layers.

    Args:
        model: folder or hub id, also of a whole CLIP, SigLIP or LLaVA, whose image encoder is
            taken; or fields of a configuration, ``model_type`` among them (then weights are
            random).
        layers: hidden states that become maps, fine to coarse as they stand; 0 is the embedding,
            -1 the last layer, -2 the one before, as in LLaVA. Later layers do not run. ``tokens``
            are those of the last of them.
        view: how the image is fitted, see :class:`ViewSettings`; size and colours are the
            encoder's where they are not given.
        pretrained: with False, weights are random.
        frozen: with False the encoder trains, which wants ``dtype="float32"``.
        checkpoint: recompute layers in the backward pass instead of storing them.
        dtype: of the weights; default: bfloat16 where CUDA is available and it is frozen, else
            float32.

    Raises:
        ConfigError: it is no image encoder that we know, a layer does not exist, or it is to
            train in half precision.
        CheckpointError: the folder lacks its weights.
    """

    #: Where the weights are that llmdet.checkpoint.frozen leaves out of checkpoints.
    source_part, source_kind = "encoder", "image encoder"

    def __init__(
        self,
        model: str | Mapping[str, Any],
        layers: Sequence[int] = (-2,),
        view: Mapping[str, Any] | None = None,
        pretrained: bool = True,
        frozen: bool = True,
        checkpoint: bool = False,
        dtype: str | None = None,
    ) -> None:
        super().__init__(frozen=frozen, dtype=dtype)
        self.encoder: Any = build_encoder(model, pretrained=pretrained, dtype=self.dtype)
        self.source = model if pretrained and isinstance(model, str) else None
        self.source_names = tuple(self.encoder.state_dict())
        config = self.encoder.config
        self.dims = int(config.hidden_size)
        self.layers = tuple(_layer_number(layer, config.num_hidden_layers) for layer in layers)
        size = int(config.image_size)
        colours: Mapping[str, Any] = _COLOURS[config.model_type]
        self.view = ViewSettings(**{"size": (size, size), **colours, **(view or {})})
        self.patch = int(config.patch_size)
        self.shape = self.view.size[0] // self.patch, self.view.size[1] // self.patch
        self._interpolate = self.view.size != (size, size)
        self.checkpoint = checkpoint
        if checkpoint:
            self.encoder.gradient_checkpointing_enable({"use_reentrant": False})
        if frozen:
            self.requires_grad_(False)
        else:
            self._freeze_what_never_runs()
        self.train(False)

    def forward(self, view: View) -> TowerOutput:
        """Tokens and maps; padding counts as part of the image, as it did in their training."""
        with self.reading(view.pixels.device):
            states = self._states(view.pixels.to(self.dtype))
        maps = tuple(state.transpose(1, 2).unflatten(2, self.shape) for state in states)
        ratios = torch.ones(len(view.pixels), len(maps), 2, device=view.pixels.device)
        # Patches leave out what remains right and below, as 6 of SigLIP's 384 pixels.
        read = self.shape[0] * self.patch, self.shape[1] * self.patch
        return TowerOutput(states[-1], maps, ratios, replace(view.frame, size=read))

    def _states(self, pixels: Tensor) -> list[Tensor]:
        """Patches [B, N, C] after each of the wanted layers."""
        encoder = self.encoder
        hidden = encoder.embeddings(pixels, interpolate_pos_encoding=self._interpolate)
        if hasattr(encoder, "pre_layrnorm"):  # CLIP's
            hidden = encoder.pre_layrnorm(hidden)
        found = {0: hidden}
        for number, layer in enumerate(encoder.encoder.layers[: max(self.layers)], 1):
            hidden = layer(hidden, None)
            found[number] = hidden
        patches = self.shape[0] * self.shape[1]
        return [found[layer][:, -patches:] for layer in self.layers]  # CLIP's class token is first

    def _freeze_what_never_runs(self) -> None:
        """Distributed training would wait for gradients of layers behind the last that is read."""
        unused = [*self.encoder.encoder.layers[max(self.layers) :], self.encoder.post_layernorm]
        unused += [self.encoder.head] if hasattr(self.encoder, "head") else []
        for module in unused:
            module.requires_grad_(False)


def _layer_number(layer: int, count: int) -> int:
    number = layer + count + 1 if layer < 0 else layer
    if not 0 <= number <= count:
        raise ConfigError(f"tower.layers has {layer}, but the image encoder has {count} layers")
    return number


def build_encoder(
    model: str | Mapping[str, Any], *, pretrained: bool = True, dtype: torch.dtype
) -> Any:
    """An image encoder of transformers; arguments as of :class:`TransformersTower`."""
    from transformers import AutoModel

    config = read_vision_config(model)
    if config.model_type not in _COLOURS:
        raise ConfigError(
            f"tower.model={model!r} is a {config.model_type}, no image encoder that is known: "
            f"{', '.join(_COLOURS)}, or a model around one"
        )
    if not (pretrained and isinstance(model, str)):
        return AutoModel.from_config(config, dtype=dtype)
    encoder, _ = read_model(AutoModel, model, config, setting="tower", keys=_KEYS, dtype=dtype)
    return encoder


def read_vision_config(model: str | Mapping[str, Any]) -> Any:
    """The configuration of an image encoder: of a folder or hub id, or from its fields.

    Raises:
        ConfigError: there is none.
    """
    from transformers import AutoConfig

    try:
        if isinstance(model, Mapping):
            fields = dict(model)
            if "model_type" not in fields:
                raise ConfigError(
                    "tower.model given as a dict needs 'model_type', e.g. 'clip_vision_model'"
                )
            return AutoConfig.for_model(**fields)
        config = AutoConfig.from_pretrained(model, trust_remote_code=False, **hub_options(model))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"tower.model={model!r} is no folder with a config.json and no known model of the hub "
            f"({reason})"
        ) from error
    return getattr(config, "vision_config", config)
