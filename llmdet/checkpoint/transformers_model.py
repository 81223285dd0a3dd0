"""The model of our config that a configuration of transformers' MM-Grounding-DINO describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmdet.errors import CheckpointError

MODEL_TYPE = "mm-grounding-dino"
#: Settings with one value that our detector has.
_ONLY = {
    "two_stage": True,
    "query_dim": 4,
    "position_embedding_type": "sine",
    "embedding_init_target": True,
    "activation_function": "relu",
    "layer_norm_eps": 1e-5,
}
_ONLY_SWIN = {
    "patch_size": 4,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "layer_norm_eps": 1e-5,
}
_ONLY_RESNET = {"hidden_act": "relu", "downsample_in_first_stage": False}
#: (kind of block, number in each stage) -> depth by which mmdet calls the ResNet.
_RESNETS = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
}


def read_transformers_config(folder: Path) -> Any:
    """The configuration in a folder, as transformers' object.

    Raises:
        CheckpointError: it cannot be read, or is another model's.
    """
    from transformers import AutoConfig

    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # its checks raise what they like
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{folder}/config.json cannot be read: {reason}") from error
    if settings.model_type != MODEL_TYPE:
        raise CheckpointError(
            f"{folder}/config.json is of a '{settings.model_type}', and a detector can be derived "
            f"from '{MODEL_TYPE}' alone"
        )
    return settings


def model_changes(settings: Any) -> dict[str, Any]:
    """What differs from ``configs/_base_/models/grounding_dino_swin_t.py`` in a model.

    Args:
        settings: a ``MMGroundingDinoConfig``.

    Raises:
        CheckpointError: a setting that our detector does not have; the sentence names it.
    """
    _check(settings, _ONLY, "")
    width, levels = settings.d_model, settings.num_feature_levels
    backbone, channels = _backbone(settings.backbone_config)
    if settings.text_config.model_type != "bert":
        raise CheckpointError(
            f"text_config.model_type is '{settings.text_config.model_type}', and the text encoder "
            "of this detector is a BERT"
        )
    deformable = {"embed_dims": width, "num_levels": levels}
    attention = {"embed_dims": width, "num_heads": settings.decoder_attention_heads}
    return {
        "num_queries": settings.num_queries,
        "num_feature_levels": levels,
        "language_model": {
            "max_tokens": min(settings.max_text_len, settings.text_config.max_position_embeddings)
        },
        "backbone": backbone,
        "neck": {"in_channels": channels, "out_channels": width, "num_outs": levels},
        "encoder": {
            "num_layers": settings.encoder_layers,
            "num_cp": settings.encoder_layers,
            **_encoder_layers(settings, deformable),
        },
        "decoder": {
            "num_layers": settings.decoder_layers,
            "layer_cfg": {
                "self_attn_cfg": attention,
                "cross_attn_text_cfg": attention,
                "cross_attn_cfg": {
                    **deformable,
                    "num_heads": settings.decoder_attention_heads,
                    "num_points": settings.decoder_n_points,
                },
                "ffn_cfg": {"embed_dims": width, "feedforward_channels": settings.decoder_ffn_dim},
            },
        },
        "positional_encoding": {
            "num_feats": width // 2,
            "temperature": settings.positional_embedding_temperature,
        },
    }


def _encoder_layers(settings: Any, deformable: Mapping[str, Any]) -> dict[str, Any]:
    """The three kinds of encoder layers, two of which have half the width and half the heads."""
    width, ffn, heads = settings.d_model, settings.encoder_ffn_dim, settings.encoder_attention_heads
    points = settings.encoder_n_points
    return {
        "layer_cfg": {
            "self_attn_cfg": {**deformable, "num_heads": heads, "num_points": points},
            "ffn_cfg": {"embed_dims": width, "feedforward_channels": ffn},
        },
        "text_layer_cfg": {
            "self_attn_cfg": {"embed_dims": width, "num_heads": heads // 2},
            "ffn_cfg": {"embed_dims": width, "feedforward_channels": ffn // 2},
        },
        "fusion_layer_cfg": {
            "v_dim": width,
            "l_dim": width,
            "embed_dim": ffn // 2,
            "num_heads": heads // 2,
        },
    }


def _backbone(settings: Any) -> tuple[dict[str, Any], list[int]]:
    """Settings of the backbone, and the channels of the maps that the neck reads."""
    indices = tuple(index - 1 for index in settings.out_indices)
    if min(indices, default=-1) < 0:
        raise CheckpointError(
            f"backbone_config.out_indices is {list(settings.out_indices)}, and the neck of this "
            "detector reads stages of the backbone, which count from 1"
        )
    if settings.model_type == "swin":
        _check(settings, _ONLY_SWIN, "backbone_config.")
        _check(settings, {"mlp_ratio": int(settings.mlp_ratio)}, "backbone_config.")
        changes = {
            "embed_dims": settings.embed_dim,
            "depths": list(settings.depths),
            "num_heads": list(settings.num_heads),
            "window_size": settings.window_size,
            "mlp_ratio": int(settings.mlp_ratio),
            "qkv_bias": settings.qkv_bias,
            "drop_path_rate": settings.drop_path_rate,
            "out_indices": indices,
        }
        return changes, [settings.embed_dim * 2**index for index in indices]
    if settings.model_type == "resnet":
        return _resnet(settings, indices), [settings.hidden_sizes[index] for index in indices]
    raise CheckpointError(
        f"backbone_config.model_type is '{settings.model_type}', and a detector can be derived "
        "with 'swin' or 'resnet'"
    )


def _resnet(settings: Any, indices: tuple[int, ...]) -> dict[str, Any]:
    _check(settings, _ONLY_RESNET, "backbone_config.")
    kind, depths, widths = settings.layer_type, tuple(settings.depths), settings.hidden_sizes
    base = widths[0] // (4 if kind == "bottleneck" else 1)
    doubled = [widths[0] * 2**stage for stage in range(len(widths))]
    if (kind, depths) not in _RESNETS or list(widths) != doubled:
        raise CheckpointError(
            f"backbone_config is a ResNet of {list(depths)} {kind} blocks with {list(widths)} "
            "channels, and this detector has ResNet-18, 34, 50, 101 and 152, whose channels double"
        )
    return {
        "_delete_": True,
        "type": "ResNet",
        "depth": _RESNETS[kind, depths],
        "base_channels": base,
        "stem_channels": settings.embedding_size,
        "out_indices": indices,
        "norm_cfg": {"type": "BN"},
        "norm_eval": True,
        "style": "caffe" if settings.downsample_in_bottleneck else "pytorch",
    }


def _check(settings: Any, only: Mapping[str, Any], where: str) -> None:
    for name, value in only.items():
        given = getattr(settings, name)
        if given != value:
            raise CheckpointError(
                f"{where}{name} is {given!r} in config.json, and this detector has {value!r}"
            )
