"""Key map from GLaMM's files to a ``RegionLMM`` of its parts (arXiv 2311.03356).

The model is that of configs/glamm: towers named "clip" and "sam", connectors of two maps for images
and of one for regions, a language model whose folder has GLaMM's tokens, and masks as the output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

StateDict = dict[str, Tensor]

_MARKS = re.compile(
    r"(.*\.)?(grounding_encoder\.(image_encoder|prompt_encoder|mask_decoder)"
    r"|region_encoder\.(mlvl_fuse|roi_align))\."
)
#: Where trainings with LoRA keep everything.
_WRAPPER = "base_model.model."
_SAM = "model.grounding_encoder."
_ENCODER, _REGION = "filler.encoders.region.", r"model\.region_encoder\."
#: Patterns of their names -> ours; the first that fits wins.
_TABLE = (
    (_REGION + r"mlvl_fuse\.input_conv\.(.+)", _ENCODER + r"inputs.\1"),
    (_REGION + r"mlvl_fuse\.fuse_convs\.(\d+)\.conv\.(.+)", _ENCODER + r"rounds.\1.0.\2"),
    (_REGION + r"mlvl_fuse\.fuse_convs\.(\d+)\.gn\.(.+)", _ENCODER + r"rounds.\1.1.\2"),
    (_REGION + r"roi_align\.pconvs\.(.+)", _ENCODER + r"outputs.\1"),
    (_REGION + r"roi_align\.pos_embedd\.(.+)", _ENCODER + r"box_code.\1"),
    (_REGION + r"roi_align\.flatten_linear\.(.+)", _ENCODER + r"flatten.\1"),
    (_REGION + r"roi_align\.updims\.(.+)", r"filler.connectors.region.projector.0.\1"),
    (r"model\.mm_projector\.(.+)", r"filler.connectors.image.projector.\1"),
    (r"model\.text_hidden_fcs\.0\.(.+)", r"output.prompt_map.\1"),
    (r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?(.+)", r"towers.clip.encoder.\1"),
    (r"(.+)\.(lora_[AB])\.weight", r"lmm.causal_lm.\1.\2.default.weight"),
    (r"((?:model|lm_head)\..+)", r"lmm.causal_lm.\1"),
)
#: Parts of SAM, under transformers' names -> ours.
_SAM_TABLE = (
    (r"vision_encoder\.(.+)", r"towers.sam.encoder.\1"),
    (r"mask_decoder\.(.+)", r"output.decoder.decoder.\1"),
    (r"shared_image_embedding\.(.+)", r"output.decoder.positions.\1"),
    (r"prompt_encoder\.no_mask_embed\.(.+)", r"output.decoder.no_mask.\1"),
)


def is_glamm(keys: Iterable[str]) -> bool:
    """Whether these are names of GLaMM's files."""
    return any(map(_MARKS.match, keys))


def glamm_to_llmdet(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Renames their keys to ours.

    Prompts that SAM has for points, boxes and masks, and counts of positions that are no weights,
    are left out: nothing reads them.
    """
    from llmdet.models.vision.segment_anything import renamed

    theirs = {key.removeprefix(_WRAPPER): value for key, value in state_dict.items()}
    ours: StateDict = {}
    for key, value in theirs.items():
        if not key.startswith(_SAM) and not key.endswith(("position_ids", "rotary_emb.inv_freq")):
            ours[_name(key, _TABLE)] = value
    if any(key.startswith(_SAM) for key in theirs):
        for key, value in renamed(theirs).items():
            name = _name(key, _SAM_TABLE)
            if name != key:
                ours[name] = value
    return ours


def _name(key: str, table: Iterable[tuple[str, str]]) -> str:
    for theirs, ours in table:
        if found := re.fullmatch(theirs, key):
            return found.expand(ours)
    return key
