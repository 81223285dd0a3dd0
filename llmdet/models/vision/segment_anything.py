"""SAM's published ``.pth`` files, and SAM inside GLaMM's checkpoints, under transformers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from llmdet.checkpoint.files import read_checkpoint
from llmdet.errors import CheckpointError

#: Where GLaMM's checkpoints keep it.
GLAMM_PREFIX = "model.grounding_encoder."
#: Pattern of their name -> ours, in order; each applies to what the ones before made.
_NAMES = {
    r"^image_encoder\.": "vision_encoder.",
    r"\.patch_embed\.proj\.": ".patch_embed.projection.",
    r"\.blocks\.(\d+)\.norm([12])\.": r".layers.\1.layer_norm\2.",
    r"\.blocks\.": ".layers.",
    r"\.neck\.0\.": ".neck.conv1.",
    r"\.neck\.1\.": ".neck.layer_norm1.",
    r"\.neck\.2\.": ".neck.conv2.",
    r"\.neck\.3\.": ".neck.layer_norm2.",
    r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$": (
        "shared_image_embedding.positional_embedding"
    ),
    r"\.point_embeddings\.": ".point_embed.",
    r"\.mask_downscaling\.0\.": ".mask_embed.conv1.",
    r"\.mask_downscaling\.1\.": ".mask_embed.layer_norm1.",
    r"\.mask_downscaling\.3\.": ".mask_embed.conv2.",
    r"\.mask_downscaling\.4\.": ".mask_embed.layer_norm2.",
    r"\.mask_downscaling\.6\.": ".mask_embed.conv3.",
    r"^mask_decoder\.transformer\.layers\.(\d+)\.norm(\d)\.": (
        r"mask_decoder.transformer.layers.\1.layer_norm\2."
    ),
    r"\.norm_final_attn\.": ".layer_norm_final_attn.",
    r"\.output_upscaling\.0\.": ".upscale_conv1.",
    r"\.output_upscaling\.1\.": ".upscale_layer_norm.",
    r"\.output_upscaling\.3\.": ".upscale_conv2.",
    r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.0\.": r"\1.proj_in.",
    r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.2\.": r"\1.proj_out.",
    r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.1\.": r"\1.layers.0.",
}


def is_original(model: str) -> bool:
    """Whether a name is that of a file, as segment_anything publishes its weights."""
    return Path(model).suffix in (".pth", ".pt")


def read_original(path: str) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and weights of a SAM for transformers, from a file of segment_anything.

    Raises:
        CheckpointError: the file cannot be read, or holds no SAM.
    """
    weights = renamed(read_checkpoint(path).state_dict)
    try:
        return config_of(weights), weights
    except KeyError as error:
        raise CheckpointError(
            f"'{path}' is no checkpoint of segment_anything: it lacks {error}"
        ) from None


def config_of(weights: Mapping[str, Tensor], decoder_heads: int = 8) -> Any:
    """A configuration for weights of segment_anything, whatever its size.

    Their mask decoder normalises with an epsilon of 1e-5, where transformers' default is 1e-6 and
    moves logits by nearly 0.01.

    Args:
        weights: of :func:`renamed`.
        decoder_heads: of attention in the mask decoder, which no shape tells.
    """
    from transformers import SamConfig

    def shape(name: str) -> tuple[int, ...]:
        return tuple(weights[name].shape)

    encoder = "vision_encoder."
    _, grid, _, width = shape(f"{encoder}pos_embed")
    patch = shape(f"{encoder}patch_embed.projection.weight")[-1]
    layers = 1 + max(int(n.split(".")[2]) for n in weights if n.startswith(f"{encoder}layers."))
    reaches = [shape(f"{encoder}layers.{n}.attn.rel_pos_h") for n in range(layers)]
    whole = [number for number, (reach, _) in enumerate(reaches) if reach == 2 * grid - 1]
    windows = [(reach + 1) // 2 for number, (reach, _) in enumerate(reaches) if number not in whole]
    channels = shape(f"{encoder}neck.conv1.weight")[0]
    sides = {"image_size": grid * patch, "patch_size": patch}
    mask_channels = shape("prompt_encoder.mask_embed.conv2.weight")[0]
    return SamConfig(
        vision_config={
            **sides,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // reaches[0][1],
            "global_attn_indexes": whole,
            "window_size": windows[0] if windows else 0,
            "output_channels": channels,
            "mlp_dim": shape(f"{encoder}layers.0.mlp.lin1.weight")[0],
            "num_pos_feats": shape("shared_image_embedding.positional_embedding")[1],
        },
        prompt_encoder_config={
            **sides,
            "hidden_size": channels,
            "mask_input_channels": mask_channels,
        },
        mask_decoder_config={
            "hidden_size": channels,
            "mlp_dim": shape("mask_decoder.transformer.layers.0.mlp.lin1.weight")[0],
            "num_attention_heads": decoder_heads,
            "iou_head_hidden_dim": shape("mask_decoder.iou_prediction_head.proj_in.weight")[0],
            "layer_norm_eps": 1e-5,
        },
    )


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of segment_anything, or those of them in a GLaMM, under transformers' names."""
    inside = any(name.startswith(GLAMM_PREFIX) for name in weights)
    ours: dict[str, Tensor] = {}
    for name, value in weights.items():
        if inside and not name.startswith(GLAMM_PREFIX):
            continue
        key = name.removeprefix(GLAMM_PREFIX)
        for pattern, replacement in _NAMES.items():
            key = re.sub(pattern, replacement, key)
        ours[key] = value
    shared = "shared_image_embedding.positional_embedding"
    if shared in ours:
        ours["prompt_encoder.shared_embedding.positional_embedding"] = ours[shared]
    return ours
