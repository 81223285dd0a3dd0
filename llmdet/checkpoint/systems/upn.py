"""Names that weights of UPN (ChatRex's proposal model, 2411.18363) have in their file, and ours.

The file is of the family of IDEA's DINO: its modules carry that program's names, whatever stands in
front of them, and beside them there are two vectors of one row, ``fine_grained_prompt`` and
``coarse_grained_prompt``. Swin orders the channels of merged patches as in transformers' files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from llmdet.checkpoint.transformers_keys import reorder_patch_merging
from llmdet.errors import CheckpointError
from llmdet.prompts.types import GRANULARITIES

StateDict = dict[str, Tensor]

NOTICE = (
    "'{}' holds weights of UPN, which are under the IDEA License 1.0: for research that is not "
    "commercial, and so is what is trained from them. Their notice goes with every copy, see "
    "https://github.com/IDEA-Research/ChatRex and docs/licences.md"
)

_PROMPT = re.compile(r"(?:^|.*\.)({})_grained_prompt(?:\.weight)?".format("|".join(GRANULARITIES)))
_ENCODER, _DECODER = r"encoder\.layers\.(\d+)\.", r"decoder\.layers\.(\d+)\."
_OUR_ENCODER, _OUR_DECODER = "encoder.layers.{}.", "decoder.layers.{}."
_BLOCK, _OUR_BLOCK = r"layers\.(\d+)\.blocks\.(\d+)\.", "backbone.stages.{}.blocks.{}."
_END = r"(weight|bias)"

#: (pattern of their key behind any prefix, ours), the first that fits wins.
_TABLE: tuple[tuple[str, str], ...] = (
    (_ENCODER + r"self_attn\.(.+)", _OUR_ENCODER + "self_attn.{}"),
    (_ENCODER + r"norm1\.(.+)", _OUR_ENCODER + "norms.0.{}"),
    (_ENCODER + r"norm2\.(.+)", _OUR_ENCODER + "norms.1.{}"),
    (_ENCODER + r"linear1\.(.+)", _OUR_ENCODER + "ffn.layers.0.0.{}"),
    (_ENCODER + r"linear2\.(.+)", _OUR_ENCODER + "ffn.layers.1.{}"),
    (_DECODER + r"self_attn\.(.+)", _OUR_DECODER + "self_attn.attn.{}"),
    (_DECODER + r"cross_attn\.(.+)", _OUR_DECODER + "cross_attn.{}"),
    (_DECODER + r"norm2\.(.+)", _OUR_DECODER + "norms.0.{}"),  # behind self-attention
    (_DECODER + r"norm1\.(.+)", _OUR_DECODER + "norms.1.{}"),
    (_DECODER + r"norm3\.(.+)", _OUR_DECODER + "norms.2.{}"),
    (_DECODER + r"linear1\.(.+)", _OUR_DECODER + "ffn.layers.0.0.{}"),
    (_DECODER + r"linear2\.(.+)", _OUR_DECODER + "ffn.layers.1.{}"),
    (r"decoder\.norm\.(.+)", "decoder.norm.{}"),
    (r"decoder\.ref_point_head\.(.+)", "decoder.ref_point_head.{}"),
    (r"level_embed", "level_embed"),
    (r"tgt_embed\.weight", "query_embedding.weight"),
    (r"enc_output\.(.+)", "memory_trans_fc.{}"),
    (r"enc_output_norm\.(.+)", "memory_trans_norm.{}"),
    (r"patch_embed\.proj\.(.+)", "backbone.patch_embed.projection.{}"),
    (r"patch_embed\.norm\.(.+)", "backbone.patch_embed.norm.{}"),
    (_BLOCK + r"(norm[12]\..+)", _OUR_BLOCK + "{}"),
    (_BLOCK + r"attn\.(.+)", _OUR_BLOCK + "attn.w_msa.{}"),
    (_BLOCK + r"mlp\.fc1\.(.+)", _OUR_BLOCK + "ffn.layers.0.0.{}"),
    (_BLOCK + r"mlp\.fc2\.(.+)", _OUR_BLOCK + "ffn.layers.1.{}"),
    (r"layers\.(\d+)\.downsample\.(.+)", "backbone.stages.{}.downsample.{}"),
    (r"norm(\d)\." + _END, "backbone.norm{}.{}"),
)
#: What the model does not need: computed, of training alone, or a second name of ``bbox_embed``.
_WITHOUT_PLACE = re.compile(
    r"(^|\.)(relative_position_index|attn_mask|label_enc\.weight|decoder\.(bbox|class)_embed\..+)$"
)


def is_upn(keys: Iterable[str]) -> bool:
    """Whether a file of these keys is UPN's: no other has its two prompts."""
    return any(_PROMPT.fullmatch(key) for key in keys)


def upn_to_llmdet(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Renames the file's tensors to those of our ``ProposalDINO``.

    Raises:
        CheckpointError: a prompt is missing, or a key fits no name of DINO's.
    """
    result = {"granularity_embedding.weight": _prompts(state_dict)}
    heads = _heads(state_dict)
    convs = {
        int(found[1])
        for key, value in state_dict.items()
        if (found := re.search(r"input_proj\.(\d+)\.0\.weight$", key)) and value.shape[-1] == 1
    }
    for key, value in state_dict.items():
        if _PROMPT.fullmatch(key) or _WITHOUT_PLACE.search(key):
            continue
        for name in _box_maps(key, heads) or [_our_name(key, len(convs))]:
            merging = ".downsample." in name
            result[name] = reorder_patch_merging(value, to_transformers=False) if merging else value
    return result


def _prompts(state_dict: Mapping[str, Tensor]) -> Tensor:
    """Both prompts in our order: [2, C]."""
    found = {m[1]: v.reshape(-1) for k, v in state_dict.items() if (m := _PROMPT.fullmatch(k))}
    missing = [name for name in GRANULARITIES if name not in found]
    if missing:
        raise CheckpointError(f"the weights of UPN lack {missing[0]}_grained_prompt")
    return torch.stack([found[name] for name in GRANULARITIES])


def _heads(state_dict: Mapping[str, Tensor]) -> int:
    """Layers of the decoder, each of which has a box map."""
    layers = [m[1] for key in state_dict if (m := re.search(_DECODER + "norm1", key))]
    return len(set(layers))


def _box_maps(key: str, layers: int) -> list[str]:
    """Our names of a tensor of a box map; several where all layers share it."""
    if found := re.search(r"enc_out_bbox_embed\.layers\.(\d)\.(\w+)$", key):
        return [_box_map(layers, found[1], found[2])]
    if found := re.search(r"bbox_embed\.(\d+)\.layers\.(\d)\.(\w+)$", key):
        return [_box_map(int(found[1]), found[2], found[3])]
    if found := re.search(r"bbox_embed\.layers\.(\d)\.(\w+)$", key):
        return [_box_map(layer, found[1], found[2]) for layer in range(layers)]
    return []


def _box_map(branch: int, layer: str, end: str) -> str:
    return f"bbox_head.reg_branches.{branch}.{2 * int(layer)}.{end}"


def _our_name(key: str, convs: int) -> str:
    if found := re.search(r"input_proj\.(\d+)\.([01])\.(\w+)$", key):
        level, part = int(found[1]), ("conv", "gn")[int(found[2])]
        room = f"convs.{level}" if level < convs else f"extra_convs.{level - convs}"
        return f"neck.{room}.{part}.{found[3]}"
    for pattern, ours in _TABLE:
        if found := re.fullmatch(r"(?:.*\.)?" + pattern, key):
            return ours.format(*found.groups())
    raise CheckpointError(
        f"key '{key}' fits no name of the weights of UPN; which program wrote this checkpoint?"
    )
