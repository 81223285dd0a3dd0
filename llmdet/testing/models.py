"""Detectors small enough for tests, of the same classes as the real ones."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmdet.models.detectors import GroundingDINO, ProposalDINO

DIMS, LEVELS = 32, 4
_ATTENTION = {"embed_dims": DIMS, "num_heads": 4, "dropout": 0.0}
_DEFORMABLE = {**_ATTENTION, "num_levels": LEVELS}
_FFN = {"embed_dims": DIMS, "feedforward_channels": 48, "ffn_drop": 0.0}

#: Settings of a two-layer detector of width 32; images of 64 pixels are enough for it.
TINY_DETECTOR: dict[str, Any] = {
    "type": "GroundingDINO",
    "num_queries": 20,
    "num_feature_levels": LEVELS,
    "data_preprocessor": {
        "type": "DetDataPreprocessor",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "bgr_to_rgb": True,
    },
    "language_model": {
        "type": "BertModel",
        "max_tokens": 64,
        "pad_to_max": False,
        "use_sub_sentence_represent": True,
        "special_tokens_list": ["[CLS]", "[SEP]", ".", "?"],
    },
    "backbone": {
        "type": "SwinTransformer",
        "embed_dims": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 4],
        "window_size": 4,
        "drop_path_rate": 0.0,
        "out_indices": (1, 2, 3),
    },
    "neck": {
        "type": "ChannelMapper",
        "in_channels": [16, 32, 64],
        "kernel_size": 1,
        "out_channels": DIMS,
        "act_cfg": None,
        "bias": True,
        "norm_cfg": {"type": "GN", "num_groups": 8},
        "num_outs": LEVELS,
    },
    "encoder": {
        "num_layers": 2,
        "layer_cfg": {"self_attn_cfg": _DEFORMABLE, "ffn_cfg": _FFN},
        "text_layer_cfg": {"self_attn_cfg": _ATTENTION, "ffn_cfg": _FFN},
        "fusion_layer_cfg": {
            "v_dim": DIMS,
            "l_dim": DIMS,
            "embed_dim": 64,
            "num_heads": 4,
            "init_values": 0.3,
            "dropout": 0.0,
        },
    },
    "decoder": {
        "num_layers": 2,
        "layer_cfg": {
            "self_attn_cfg": _ATTENTION,
            "cross_attn_text_cfg": _ATTENTION,
            "cross_attn_cfg": _DEFORMABLE,
            "ffn_cfg": _FFN,
        },
    },
    "positional_encoding": {"num_feats": DIMS // 2, "normalize": True, "temperature": 20},
    "bbox_head": {
        "type": "GroundingDINOHead",
        "contrastive_cfg": {"log_scale": "auto", "bias": True},
    },
    "dn_cfg": {"group_cfg": {"dynamic": True, "num_groups": None, "num_dn_queries": 12}},
    "test_cfg": {"max_per_img": 15},
}


def tiny_config(bert: str | Path, **changes: Any) -> dict[str, Any]:
    """Settings of the tiny detector; ``changes`` replace or extend them, dicts key by key.

    Args:
        bert: folder of a BERT, for instance of :func:`llmdet.datasets.toy.models.tiny_bert`.
    """
    config = deepcopy(TINY_DETECTOR)
    config["language_model"]["name"] = str(bert)
    return _merged(config, changes)


def tiny_grounding_dino(bert: str | Path, seed: int = 0, **changes: Any) -> GroundingDINO:
    """Build the tiny detector with random weights that leave no path silent.

    Args:
        bert: folder of a BERT.
        seed: of the weights.
        changes: see :func:`tiny_config`.
    """
    return _build(tiny_config(bert, **changes), seed)


def tiny_proposal_config(**changes: Any) -> dict[str, Any]:
    """Settings of the tiny detector without words; ``changes`` as in :func:`tiny_config`."""
    config = deepcopy(TINY_DETECTOR)
    config |= {"type": "ProposalDINO", "language_model": None}
    config["encoder"] |= {"text_layer_cfg": None, "fusion_layer_cfg": None}
    config["decoder"]["layer_cfg"]["cross_attn_text_cfg"] = None
    config["bbox_head"] |= {"num_classes": 1, "share_boxes": True}
    return _merged(config, changes)


def tiny_proposal_dino(seed: int = 0, **changes: Any) -> ProposalDINO:
    """Build the detector of :func:`tiny_proposal_config` with random weights."""
    return _build(tiny_proposal_config(**changes), seed)


def _build(config: dict[str, Any], seed: int) -> Any:
    import torch
    from mmengine.config import ConfigDict

    import llmdet.models  # noqa: F401  registers the classes
    from llmdet.registry import MODELS

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS.build(ConfigDict(config))
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def _merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    config = dict(config)  # parts of the template are shared between layers
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(config.get(key), dict)
        if nested and value.get("_delete_"):  # as in config files
            config[key] = {name: part for name, part in value.items() if name != "_delete_"}
        else:
            config[key] = _merged(config[key], value) if nested else value
    return config
