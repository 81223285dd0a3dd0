"""The ``config.json`` of transformers that belongs to our weights, read off their shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from llmdet.errors import CheckpointError
from llmdet.prompts.tokenizers import MAX_TOKENS, load_tokenizer

from .transformers_resnet import is_resnet, resnet_config
from .transformers_sizes import Heads

# What shapes do not tell, as in every published MM-Grounding-DINO; a config may say otherwise.
_TEMPERATURE = 20
_BERT_HEAD_WIDTH = 64
_GROUPS = 32  # of the neck's norm, written into transformers' class

#: mean and std of ImageNet in 0..1, which mmdet gives in 0..255
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def config_from_state_dict(
    state_dict: Mapping[str, Tensor], model: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Configuration for ``MMGroundingDinoForObjectDetection`` that holds these weights.

    Args:
        state_dict: detector weights under our names, see :func:`.transformers_sizes.fit_sizes`.
        model: the ``model`` of our config; needed only where what shapes do not tell (heads,
            longest text) differs from the published models.

    Raises:
        CheckpointError: transformers' model cannot have these sizes, or a setting of ``model``.
    """
    model = model or {}
    shape = {key: tuple(value.shape) for key, value in state_dict.items()}
    encoder_ffn = shape["encoder.layers.0.ffn.layers.0.0.weight"][0]
    text_ffn = shape["encoder.text_layers.0.ffn.layers.0.0.weight"][0]
    fusion = shape["encoder.fusion_layers.0.attn.v_proj.weight"][0]
    if not text_ffn == fusion == encoder_ffn // 2:
        raise CheckpointError(
            f"transformers' MM-Grounding-DINO wants text FFN {text_ffn} and fusion width {fusion} "
            f"to be half of the image FFN {encoder_ffn}; this model does not fit that format"
        )
    _check_groups(model)
    queries, width = shape["query_embedding.weight"]
    levels = shape["level_embed"][0]
    heads = Heads.of_model(model)
    heads.check()
    encoder_heads = 2 * heads.text
    return {
        "model_type": "mm-grounding-dino",
        "architectures": ["MMGroundingDinoForObjectDetection"],
        "backbone_config": _backbone(shape, model),
        "text_config": _bert(shape, model),
        "d_model": width,
        "num_queries": queries,
        "num_feature_levels": levels,
        "encoder_layers": _count(shape, r"encoder\.layers\.\d+\.norms\.0\.weight"),
        "encoder_ffn_dim": encoder_ffn,
        "encoder_attention_heads": encoder_heads,
        "encoder_n_points": _points(shape, "encoder.layers.0.self_attn", levels * encoder_heads),
        "decoder_layers": _count(shape, r"decoder\.layers\.\d+\.norms\.0\.weight"),
        "decoder_ffn_dim": shape["decoder.layers.0.ffn.layers.0.0.weight"][0],
        "decoder_attention_heads": heads.decoder,
        "decoder_n_points": _points(shape, "decoder.layers.0.cross_attn", levels * heads.decoder),
        "dropout": 0.0,
        "positional_embedding_temperature": model.get("positional_encoding", {}).get(
            "temperature", _TEMPERATURE
        ),
        "max_text_len": model.get("language_model", {}).get("max_tokens", MAX_TOKENS),
        "disable_custom_kernels": True,
        # every layer has its own box head; tying would copy the first over the others
        "tie_word_embeddings": False,
    }


def write_processor(
    folder: Path,
    tokenizer: str,
    model: Mapping[str, Any] | None = None,
    test_scale: tuple[int, int] = (800, 1333),
) -> None:
    """Writes image processor and tokenizer files, so that ``AutoProcessor`` reads the folder.

    Args:
        tokenizer: path or hub id of the BERT whose tokenizer the detector uses.
        model: the ``model`` of our config; its preprocessor gives mean and std.
        test_scale: (shorter side, limit of the longer side) in pixels that images are scaled to.
    """
    from transformers import GroundingDinoImageProcessor, GroundingDinoProcessor

    preprocessor = (model or {}).get("data_preprocessor", {})
    mean = [value / 255 for value in preprocessor.get("mean", ())] or _MEAN
    std = [value / 255 for value in preprocessor.get("std", ())] or _STD
    images = GroundingDinoImageProcessor(
        size={"shortest_edge": min(test_scale), "longest_edge": max(test_scale)},
        image_mean=mean,
        image_std=std,
    )
    text = load_tokenizer(tokenizer)
    GroundingDinoProcessor(images, text).save_pretrained(folder)


def _backbone(shape: Mapping[str, tuple[int, ...]], model: Mapping[str, Any]) -> dict[str, Any]:
    if is_resnet(shape):
        return resnet_config(shape, model)
    if "backbone.patch_embed.projection.weight" in shape:
        return _swin(shape, model)
    raise CheckpointError(
        "the model's backbone is neither a Swin nor a ResNet with a stem of one convolution, and "
        "transformers' MM-Grounding-DINO is written with these alone"
    )


def _swin(shape: Mapping[str, tuple[int, ...]], model: Mapping[str, Any]) -> dict[str, Any]:
    embed_dim = shape["backbone.patch_embed.projection.weight"][0]
    stages = _count(shape, r"backbone\.stages\.\d+\.blocks\.0\.norm1\.weight")
    depths = [
        _count(shape, rf"backbone\.stages\.{stage}\.blocks\.\d+\.norm1\.weight")
        for stage in range(stages)
    ]
    tables = [
        shape[f"backbone.stages.{stage}.blocks.0.attn.w_msa.relative_position_bias_table"]
        for stage in range(stages)
    ]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    features = sorted(
        int(found[1])
        for key in shape
        if (found := re.fullmatch(r"backbone\.norm(\d)\.weight", key))
    )
    return {
        "model_type": "swin",
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": [table[1] for table in tables],
        "window_size": window,
        "drop_path_rate": model.get("backbone", {}).get("drop_path_rate", 0.0),
        "out_features": [f"stage{stage + 1}" for stage in features],
        "out_indices": [stage + 1 for stage in features],
    }


def _bert(shape: Mapping[str, tuple[int, ...]], model: Mapping[str, Any]) -> dict[str, Any]:
    stem = "language_model.language_backbone.body.model."
    vocabulary, width = shape[stem + "embeddings.word_embeddings.weight"]
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": _count(
            shape, re.escape(stem) + r"encoder\.layer\.\d+\.output\.dense\.weight"
        ),
        "num_attention_heads": _bert_heads(width, model),
        "intermediate_size": shape[stem + "encoder.layer.0.intermediate.dense.weight"][0],
        "max_position_embeddings": shape[stem + "embeddings.position_embeddings.weight"][0],
        "type_vocab_size": shape[stem + "embeddings.token_type_embeddings.weight"][0],
    }


def _bert_heads(width: int, model: Mapping[str, Any]) -> int:
    name = model.get("language_model", {}).get("name")
    if name is None:
        return max(1, width // _BERT_HEAD_WIDTH)
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(name, trust_remote_code=False).num_attention_heads


def _check_groups(model: Mapping[str, Any]) -> None:
    norm = model.get("neck", {}).get("norm_cfg", {})
    groups = norm.get("num_groups", _GROUPS)
    if groups != _GROUPS:
        raise CheckpointError(
            f"transformers' MM-Grounding-DINO normalises the neck in {_GROUPS} groups, and "
            f"model.neck.norm_cfg.num_groups is {groups}"
        )


def _points(shape: Mapping[str, tuple[int, ...]], stem: str, levels_and_heads: int) -> int:
    return shape[stem + ".attention_weights.bias"][0] // levels_and_heads


def _count(shape: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return sum(re.fullmatch(pattern, key) is not None for key in shape)
