"""Key map between our detector (mmdet's key names) and transformers' MM-Grounding-DINO.

One table of name stems is read in both directions; ``{}`` is a layer number. Three things
are more than renaming: query, key and value of an attention are one matrix here and three
there, a classification bias has shape [1] here and [] there, and the 2x2 patch merging of
Swin orders its 4C input channels differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from llmdet.errors import CheckpointError

from .transformers_resnet import to_our_name, to_transformers_name

StateDict = dict[str, Tensor]

_SWIN = "model.backbone.conv_encoder.model"
_BLOCK, _SWIN_BLOCK = "backbone.stages.{}.blocks.{}", _SWIN + ".encoder.layers.{}.blocks.{}"
_ENC, _DEC = "model.encoder.layers.{}", "model.decoder.layers.{}"

#: (stem here, stem in transformers' files); the rest of the key (``weight`` ...) is equal.
_STEMS: tuple[tuple[str, str], ...] = (
    ("level_embed", "model.level_embed"),
    ("query_embedding", "model.query_position_embeddings"),
    ("memory_trans_fc", "model.enc_output"),
    ("memory_trans_norm", "model.enc_output_norm"),
    ("text_feat_map", "model.text_projection"),
    ("language_model.language_backbone.body.model", "model.text_backbone"),
    ("backbone.patch_embed.projection", _SWIN + ".embeddings.patch_embeddings.projection"),
    ("backbone.patch_embed.norm", _SWIN + ".embeddings.norm"),
    (_BLOCK + ".norm1", _SWIN_BLOCK + ".layernorm_before"),
    (_BLOCK + ".norm2", _SWIN_BLOCK + ".layernorm_after"),
    (_BLOCK + ".attn.w_msa.proj", _SWIN_BLOCK + ".attention.output.dense"),
    (
        _BLOCK + ".attn.w_msa.relative_position_bias_table",
        _SWIN_BLOCK + ".attention.self.relative_position_bias_table",
    ),
    (_BLOCK + ".ffn.layers.0.0", _SWIN_BLOCK + ".intermediate.dense"),
    (_BLOCK + ".ffn.layers.1", _SWIN_BLOCK + ".output.dense"),
    ("backbone.stages.{}.downsample", _SWIN + ".encoder.layers.{}.downsample"),
    ("encoder.fusion_layers.{}.gamma_v", _ENC + ".fusion_layer.vision_param"),
    ("encoder.fusion_layers.{}.gamma_l", _ENC + ".fusion_layer.text_param"),
    ("encoder.fusion_layers.{}.layer_norm_v", _ENC + ".fusion_layer.layer_norm_vision"),
    ("encoder.fusion_layers.{}.layer_norm_l", _ENC + ".fusion_layer.layer_norm_text"),
    ("encoder.fusion_layers.{}.attn.v_proj", _ENC + ".fusion_layer.attn.vision_proj"),
    ("encoder.fusion_layers.{}.attn.l_proj", _ENC + ".fusion_layer.attn.text_proj"),
    ("encoder.fusion_layers.{}.attn.values_v_proj", _ENC + ".fusion_layer.attn.values_vision_proj"),
    ("encoder.fusion_layers.{}.attn.values_l_proj", _ENC + ".fusion_layer.attn.values_text_proj"),
    ("encoder.fusion_layers.{}.attn.out_v_proj", _ENC + ".fusion_layer.attn.out_vision_proj"),
    ("encoder.fusion_layers.{}.attn.out_l_proj", _ENC + ".fusion_layer.attn.out_text_proj"),
    (
        "encoder.text_layers.{}.self_attn.attn.out_proj",
        _ENC + ".text_enhancer_layer.self_attn.out_proj",
    ),
    ("encoder.text_layers.{}.ffn.layers.0.0", _ENC + ".text_enhancer_layer.fc1"),
    ("encoder.text_layers.{}.ffn.layers.1", _ENC + ".text_enhancer_layer.fc2"),
    ("encoder.text_layers.{}.norms.0", _ENC + ".text_enhancer_layer.layer_norm_before"),
    ("encoder.text_layers.{}.norms.1", _ENC + ".text_enhancer_layer.layer_norm_after"),
    ("encoder.layers.{}.self_attn", _ENC + ".deformable_layer.self_attn"),
    ("encoder.layers.{}.ffn.layers.0.0", _ENC + ".deformable_layer.fc1"),
    ("encoder.layers.{}.ffn.layers.1", _ENC + ".deformable_layer.fc2"),
    ("encoder.layers.{}.norms.0", _ENC + ".deformable_layer.self_attn_layer_norm"),
    ("encoder.layers.{}.norms.1", _ENC + ".deformable_layer.final_layer_norm"),
    ("decoder.layers.{}.self_attn.attn.out_proj", _DEC + ".self_attn.out_proj"),
    ("decoder.layers.{}.cross_attn_text.attn.out_proj", _DEC + ".encoder_attn_text.out_proj"),
    ("decoder.layers.{}.cross_attn", _DEC + ".encoder_attn"),
    ("decoder.layers.{}.ffn.layers.0.0", _DEC + ".fc1"),
    ("decoder.layers.{}.ffn.layers.1", _DEC + ".fc2"),
    ("decoder.layers.{}.norms.0", _DEC + ".self_attn_layer_norm"),
    ("decoder.layers.{}.norms.1", _DEC + ".encoder_attn_text_layer_norm"),
    ("decoder.layers.{}.norms.2", _DEC + ".encoder_attn_layer_norm"),
    ("decoder.layers.{}.norms.3", _DEC + ".final_layer_norm"),
    ("decoder.norm", "model.decoder.layer_norm"),
    ("decoder.ref_point_head.layers.{}", "model.decoder.reference_points_head.layers.{}"),
)

#: (stem here, stem there, the three parts there): one matrix [3C, C] against three [C, C].
_FUSED: tuple[tuple[str, str, tuple[str, str, str]], ...] = (
    (_BLOCK + ".attn.w_msa.qkv.", _SWIN_BLOCK + ".attention.self.", ("query", "key", "value")),
    (
        "encoder.text_layers.{}.self_attn.attn.in_proj_",
        _ENC + ".text_enhancer_layer.self_attn.",
        ("query", "key", "value"),
    ),
    (
        "decoder.layers.{}.self_attn.attn.in_proj_",
        _DEC + ".self_attn.",
        ("query", "key", "value"),
    ),
    (
        "decoder.layers.{}.cross_attn_text.attn.in_proj_",
        _DEC + ".encoder_attn_text.",
        ("query", "key", "value"),
    ),
)

#: Module names of transformers >= 5.13 in memory, and what its files call them.
_IN_MEMORY: tuple[tuple[str, str], ...] = (
    (r"^(model\.backbone\.conv_encoder\.model)\.swin\.(encoder|embeddings)\.", r"\1.\2."),
    (r"(\.blocks\.\d+\.attention)\.q_proj\.", r"\1.self.query."),
    (r"(\.blocks\.\d+\.attention)\.k_proj\.", r"\1.self.key."),
    (r"(\.blocks\.\d+\.attention)\.v_proj\.", r"\1.self.value."),
    (r"(\.blocks\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
    (r"(\.blocks\.\d+\.attention)\.relative_position_bias\.", r"\1.self."),
    (r"(\.blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(\.blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)

_PATCH_MERGING = re.compile(r"backbone\.stages\.\d+\.downsample\.")
#: ``model_type`` of the backbones whose tensors have names here
BACKBONES = ("swin", "resnet")
_LAYER_HEAD = re.compile(r"(bbox|class)_embed\.\d+\.")

#: Keys of transformers' files that have no place here, and why.
TRANSFORMERS_ONLY: tuple[tuple[str, str], ...] = (
    (r"\.relative_position_index$", "computed from the window size"),
    (r"^model\.text_backbone\.embeddings\.position_ids$", "computed from the length"),
    (
        r"^model\.backbone\.conv_encoder\.model(\.swin)?\.layernorm\.",
        "norm after the last stage, which the detector never reads",
    ),
    (r"^model\.decoder\.(bbox|class)_embed\.", "second name of bbox_embed and class_embed"),
    (r"^model\.text_backbone\.pooler\.", "pooler that the detector never reads"),
)

#: Keys of ours that transformers' model has no place for, and why.
LLMDET_ONLY: tuple[tuple[str, str], ...] = (
    (r"\.relative_position_index$", "computed from the window size"),
    (r"^language_model\.language_backbone\.body\.model\.embeddings\.position_ids$", "computed"),
    (r"^language_model\.language_backbone\.body\.model\.pooler\.", "never read"),
    (r"^dn_query_generator\.", "denoising queries exist only while training"),
    (r"^backbone\..*\.num_batches_tracked$", "norms of the backbone count batches in training"),
)


def transformers_to_llmdet(state_dict: Mapping[str, Tensor], config: Any = None) -> StateDict:
    """Renames transformers' detector weights to ours; values are copied bit by bit.

    Args:
        state_dict: of ``MMGroundingDinoForObjectDetection``, from a file or from memory.
        config: its configuration (object or dict), if known: checked to be one that we can hold.

    Raises:
        CheckpointError: the backbone is another, or a key is neither mapped nor listed in
            ``TRANSFORMERS_ONLY``.
    """
    _check_backbone(config)
    source = {_file_name(key): value for key, value in state_dict.items()}
    _restore_box_heads(source)
    result: StateDict = {}
    convs = sum(
        value.shape[-1] == 1  # further levels are made with kernels of 3
        for key, value in source.items()
        if re.fullmatch(r"model\.input_proj_vision\.\d+\.0\.weight", key)
    )
    layers = _count(source, r"bbox_embed\.(\d+)\.layers\.0\.weight")
    for key, value in source.items():
        if reason_without_place(key, TRANSFORMERS_ONLY) or _is_fused_part(key):
            continue
        name = _to_ours(key, convs, layers)
        result[name] = _value_to_ours(name, value)
    _join_qkv(source, result)
    return result


def llmdet_to_transformers(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Renames our detector weights to those of transformers' files; the inverse of the above.

    Language-model keys must be removed before; keys in ``LLMDET_ONLY`` are left out.

    Raises:
        CheckpointError: a key is neither mapped nor listed in ``LLMDET_ONLY``.
    """
    convs = _count(state_dict, r"neck\.convs\.(\d+)\.conv\.weight")
    layers = _count(state_dict, r"decoder\.layers\.(\d+)\.norms\.0\.weight")
    result: StateDict = {}
    for key, value in state_dict.items():
        if reason_without_place(key, LLMDET_ONLY):
            continue
        parts = _split_qkv(key, value)
        if parts:
            result.update(parts)
            continue
        result[_to_theirs(key, convs, layers)] = _value_to_theirs(key, value)
    # one module under two names: without the second, transformers initialises both anew
    heads = {key: value for key, value in result.items() if _LAYER_HEAD.match(key)}
    result.update({f"model.decoder.{key}": value for key, value in heads.items()})
    return {key: value.contiguous() for key, value in result.items()}


def reason_without_place(key: str, table: Iterable[tuple[str, str]]) -> str | None:
    """The reason why ``key`` has no counterpart, or None when it must have one."""
    return next((reason for pattern, reason in table if re.search(pattern, key)), None)


def _file_name(key: str) -> str:
    for pattern, replacement in _IN_MEMORY:
        key = re.sub(pattern, replacement, key)
    return key


def _count(state_dict: Mapping[str, Tensor], pattern: str) -> int:
    return sum(re.fullmatch(pattern, key) is not None for key in state_dict)


def _check_backbone(config: Any) -> None:
    if config is None:
        return
    settings = config if isinstance(config, Mapping) else config.to_dict()
    kind = (settings.get("backbone_config") or {}).get("model_type")
    if kind not in BACKBONES:
        raise CheckpointError(
            f"transformers backbone '{kind}' cannot be held here, only {' or '.join(BACKBONES)}"
        )


def _restore_box_heads(source: StateDict) -> None:
    """Gives each decoder layer its box head where the files hold only the first, shared one."""
    for key in [key for key in source if re.match(r"model\.decoder\.(bbox|class)_embed\.", key)]:
        source.setdefault(key.removeprefix("model.decoder."), source[key])
    layers = _count(source, r"model\.decoder\.layers\.(\d+)\.fc1\.weight")
    first = {key: source[key] for key in source if re.match(r"(bbox|class)_embed\.0\.", key)}
    for layer in range(1, layers):
        for key, value in first.items():
            source.setdefault(key.replace("embed.0.", f"embed.{layer}.", 1), value)


def _match(template: str, key: str) -> re.Match[str] | None:
    pattern = re.escape(template).replace(r"\{\}", r"(\d+)")
    boundary = "" if template[-1] in "._" else r"(?=\.|$)"
    return re.match(pattern + boundary, key)


def _rename(key: str, table: Iterable[tuple[str, str]]) -> str | None:
    for old, new in table:
        found = _match(old, key)
        if found:
            return new.format(*found.groups()) + key[found.end() :]
    return None


def _to_ours(key: str, convs: int, layers: int) -> str:
    name = _rename(key, ((theirs, ours) for ours, theirs in _STEMS)) or to_our_name(key)
    if name:
        return name
    if found := re.fullmatch(r"model\.input_proj_vision\.(\d+)\.([01])\.(\w+)", key):
        level, part = int(found[1]), ("conv", "gn")[int(found[2])]
        room = f"convs.{level}" if level < convs else f"extra_convs.{level - convs}"
        return f"neck.{room}.{part}.{found[3]}"
    if found := re.search(r"\.hidden_states_norms\.stage(\d+)\.(\w+)$", key):
        return f"backbone.norm{int(found[1]) - 1}.{found[2]}"
    if found := re.fullmatch(r"bbox_embed\.(\d+)\.layers\.(\d)\.(\w+)", key):
        return f"bbox_head.reg_branches.{found[1]}.{2 * int(found[2])}.{found[3]}"
    if found := re.fullmatch(r"model\.encoder_output_bbox_embed\.layers\.(\d)\.(\w+)", key):
        return f"bbox_head.reg_branches.{layers}.{2 * int(found[1])}.{found[2]}"
    if found := re.fullmatch(r"class_embed\.(\d+)\.bias", key):
        return f"bbox_head.cls_branches.{found[1]}.bias"
    if key == "model.encoder_output_class_embed.bias":
        return f"bbox_head.cls_branches.{layers}.bias"
    raise CheckpointError(
        f"transformers key '{key}' has no counterpart here; is this an MM-Grounding-DINO with a "
        "Swin or ResNet backbone?"
    )


def _to_theirs(key: str, convs: int, layers: int) -> str:
    name = _rename(key, _STEMS) or to_transformers_name(key)
    if name:
        return name
    if found := re.fullmatch(r"neck\.(extra_)?convs\.(\d+)\.(conv|gn)\.(\w+)", key):
        level = int(found[2]) + (convs if found[1] else 0)
        return f"model.input_proj_vision.{level}.{int(found[3] == 'gn')}.{found[4]}"
    if found := re.fullmatch(r"backbone\.norm(\d+)\.(\w+)", key):
        return f"{_SWIN}.hidden_states_norms.stage{int(found[1]) + 1}.{found[2]}"
    if found := re.fullmatch(r"bbox_head\.reg_branches\.(\d+)\.(\d)\.(\w+)", key):
        end = f"layers.{int(found[2]) // 2}.{found[3]}"
        if int(found[1]) == layers:
            return f"model.encoder_output_bbox_embed.{end}"
        return f"bbox_embed.{found[1]}.{end}"
    if found := re.fullmatch(r"bbox_head\.cls_branches\.(\d+)\.bias", key):
        if int(found[1]) == layers:
            return "model.encoder_output_class_embed.bias"
        return f"class_embed.{found[1]}.bias"
    raise CheckpointError(
        f"key '{key}' has no counterpart in transformers' MM-Grounding-DINO, so this model cannot "
        "be written in that format"
    )


def _is_fused_part(key: str) -> bool:
    return any(_match(theirs + part, key) for _, theirs, parts in _FUSED for part in parts)


def _join_qkv(source: Mapping[str, Tensor], result: StateDict) -> None:
    for ours, theirs, parts in _FUSED:
        for key in source:
            found = _match(theirs + parts[0], key)
            if not found:
                continue
            kind = key[found.end() + 1 :]
            stem = theirs.format(*found.groups())
            values = [source[f"{stem}{part}.{kind}"] for part in parts]
            result[ours.format(*found.groups()) + kind] = torch.cat(values)


def _split_qkv(key: str, value: Tensor) -> StateDict:
    for ours, theirs, parts in _FUSED:
        found = _match(ours, key)
        if found:
            kind, stem = key[found.end() :], theirs.format(*found.groups())
            return {
                f"{stem}{part}.{kind}": third
                for part, third in zip(parts, value.chunk(3), strict=True)
            }
    return {}


def _value_to_ours(name: str, value: Tensor) -> Tensor:
    if ".cls_branches." in name:
        return value.reshape(1)
    if _PATCH_MERGING.match(name):
        return reorder_patch_merging(value, to_transformers=False)
    return value


def _value_to_theirs(name: str, value: Tensor) -> Tensor:
    if ".cls_branches." in name:
        return value.reshape(())
    if _PATCH_MERGING.match(name):
        return reorder_patch_merging(value, to_transformers=True)
    return value


def reorder_patch_merging(value: Tensor, *, to_transformers: bool) -> Tensor:
    """Reorders the last axis, the 4C channels of a merged 2x2 patch.

    Here (``nn.Unfold``) channel ``c`` of pixel (row, col) is at ``4 c + 2 row + col``; in
    transformers and in the original Swin at ``(2 col + row) C + c``.
    """
    *lead, merged = value.shape
    if to_transformers:
        by_pixel = value.reshape(*lead, merged // 4, 2, 2)  # [..., C, row, col]
        return by_pixel.movedim((-1, -2, -3), (-3, -2, -1)).reshape(value.shape)
    by_channel = value.reshape(*lead, 2, 2, merged // 4)  # [..., col, row, C]
    return by_channel.movedim((-1, -2, -3), (-3, -2, -1)).reshape(value.shape)
