"""SAM's image encoder as a tower; SAM 2's likewise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from llmdet.datasets.views import SAM_MEAN, SAM_STD, ViewSettings
from llmdet.errors import ConfigError
from llmdet.models.hub_weights import read_model
from llmdet.registry import MODELS
from llmdet.utils.hub import hub_options

from .encoder_tower import EncoderTower
from .segment_anything import is_original, read_original
from .views import TowerOutput, View

#: Model types of transformers -> whether images keep their aspect in what it sees.
KEEPS_ASPECT = {"sam": True, "sam2": False, "sam2_video": False}


@MODELS.register_module()
class SamTower(EncoderTower):
    """What SAM sees of an image whose longer side is 1,024 pixels.

    Maps are those that its mask decoder reads, fine to coarse: one of stride 16, or SAM 2's
    three of strides 4, 8 and 16, all of the same width.

    Args:
        model: folder or hub id of a whole SAM or SAM 2 of transformers, a ``.pth`` file of
            segment_anything, or fields of a configuration, ``model_type`` ("sam" or "sam2") among
            them (then weights are random).
        pretrained: with False, weights are random.
        frozen: with False the encoder trains, which wants ``dtype="float32"``.
        dtype: of the weights; default: bfloat16 where CUDA is available and it is frozen, else
            float32.

    Raises:
        ConfigError: the model is no SAM, or is to train in half precision.
        CheckpointError: its weights are not all there.
    """

    #: Where the weights are that llmdet.checkpoint.frozen leaves out of checkpoints.
    source_part, source_kind = "encoder", "SAM"

    def __init__(
        self,
        model: str | Mapping[str, Any],
        pretrained: bool = True,
        frozen: bool = True,
        dtype: str | None = None,
    ) -> None:
        super().__init__(frozen=frozen, dtype=dtype)
        sam = build_sam(model, pretrained=pretrained, dtype=self.dtype)
        self.encoder: Any = sam.vision_encoder
        self.source = model if pretrained and isinstance(model, str) else None
        self.source_names = tuple(self.encoder.state_dict())
        self.dims = int(sam.config.mask_decoder_config.hidden_size)
        self.view = sam_view(sam.config)
        if frozen:
            self.requires_grad_(False)
        self.train(False)

    def forward(self, view: View) -> TowerOutput:
        """Maps, and the coarsest of them as tokens."""
        device = view.pixels.device
        with self.reading(device):
            seen = self.encoder(view.pixels.to(self.dtype))
        maps = tuple(getattr(seen, "fpn_hidden_states", None) or (seen.last_hidden_state,))
        height, width = view.frame.size
        ratios = torch.tensor(
            [[(w / width, h / height)] * len(maps) for h, w in view.frame.valid_sizes],
            dtype=torch.float32,
        ).to(device, non_blocking=True)
        return TowerOutput(maps[-1].flatten(2).mT, maps, ratios, view.frame)


def sam_view(config: Any) -> ViewSettings:
    """What a SAM or SAM 2 of this configuration of transformers sees of an image."""
    side = int(config.prompt_encoder_config.image_size)
    return ViewSettings(
        (side, side),
        fit="pad" if KEEPS_ASPECT[config.model_type] else "stretch",
        centred=False,
        mean=SAM_MEAN,
        std=SAM_STD,
        interpolation="bilinear",
        padding="zero",
    )


def build_sam_encoder(model: str, *, dtype: torch.dtype) -> nn.Module:
    """The image encoder of a published SAM."""
    encoder: nn.Module = build_sam(model, dtype=dtype).vision_encoder
    return encoder


def build_sam(
    model: str | Mapping[str, Any], *, pretrained: bool = True, dtype: torch.dtype = torch.float32
) -> Any:
    """A whole SAM or SAM 2 of transformers; arguments as of :class:`SamTower`."""
    from transformers import Sam2Model, SamModel

    if isinstance(model, str) and is_original(model):
        config, weights = read_original(model)
        sam: Any = SamModel(config)
        if pretrained:
            sam.load_state_dict(weights)
        return sam.to(dtype)
    config = _read_config(model)
    kind: Any = SamModel if config.model_type == "sam" else Sam2Model
    if not (pretrained and isinstance(model, str)):
        return kind(config).to(dtype)
    sam, _ = read_model(kind, model, config, setting="tower", keys={}, dtype=dtype)
    return sam


def _read_config(model: str | Mapping[str, Any]) -> Any:
    from transformers import AutoConfig, Sam2Config

    try:
        if isinstance(model, Mapping):
            fields = dict(model)
            config = AutoConfig.for_model(fields.pop("model_type", "sam"), **fields)
        else:
            config = AutoConfig.from_pretrained(
                model, trust_remote_code=False, **hub_options(model)
            )
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"model={model!r} is no folder with a config.json, no .pth file of segment_anything "
            f"and no known model of the hub ({reason})"
        ) from error
    if config.model_type not in KEEPS_ASPECT:
        raise ConfigError(
            f"model={model!r} is a {config.model_type}; a SAM or SAM 2 of transformers is wanted"
        )
    if config.model_type == "sam2_video":  # published so; what images need is in it
        parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
        return Sam2Config(**{name: getattr(config, name) for name in parts})
    return config
