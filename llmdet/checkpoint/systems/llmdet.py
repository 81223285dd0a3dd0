"""Key map between the original LLMDet and ours: only what belongs to the language model differs.

The original misspells two names (``corss_attn_norm``, ``image_seperate``); they are part of
its released files and therefore of this table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from llmdet.errors import CheckpointError

StateDict = dict[str, Tensor]

#: First parts of the keys that belong to the language model, by format.
LLMDET_LANGUAGE = ("lmm.", "image_captioner.", "region_captioner.")
UPSTREAM_LANGUAGE = (
    "lmm.",
    "connector.",
    "region_connector.",
    "image_seperate.",
    "ref_point_head.",
)

_LAYER = "lmm.model.layers.{}"
_OUR_LAYER = "lmm.causal_lm.model.layers.{}"
_ATTENTION = _OUR_LAYER + ".region_attention"

#: (upstream, ours), the first that fits wins; ``{}`` is a number, ``*`` any dotted name.
_TABLE: tuple[tuple[str, str], ...] = (
    (_LAYER + ".corss_attn_norm.*", _ATTENTION + ".norm.*"),
    (_LAYER + ".cross_attn.*", _ATTENTION + ".attention.*"),
    (_LAYER + ".down_proj.*", _ATTENTION + ".down_proj.*"),
    (_LAYER + ".up_proj.*", _ATTENTION + ".up_proj.*"),
    (_LAYER + ".*.ori_model.*", _OUR_LAYER + ".*.base_layer.*"),
    (_LAYER + ".*.lora_A.*", _OUR_LAYER + ".*.lora_A.default.*"),
    (_LAYER + ".*.lora_B.*", _OUR_LAYER + ".*.lora_B.default.*"),
    ("lmm.*", "lmm.causal_lm.*"),
    ("ref_point_head.*", "lmm.reference_head.*"),
    ("connector.vision_projector.0.*", "image_captioner.connector.projector.*"),
    ("connector.pos_proj.*", "image_captioner.connector.box_projection.*"),
    ("region_connector.vision_projector.0.*", "region_captioner.connector.projector.*"),
    ("region_connector.pos_proj.*", "region_captioner.connector.box_projection.*"),
    ("image_seperate.weight", "image_captioner.separator"),
)


def upstream_to_llmdet(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Renames the original's keys to ours; the detector's keys are equal already."""
    return {upstream_key_to_llmdet(key): value for key, value in state_dict.items()}


def llmdet_to_upstream(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Renames our keys to the original's, the inverse of :func:`upstream_to_llmdet`."""
    return {llmdet_key_to_upstream(key): value for key, value in state_dict.items()}


def upstream_key_to_llmdet(key: str) -> str:
    """One key of the original under our name.

    Raises:
        CheckpointError: the key belongs to the language model and fits no row of the table.
    """
    if not key.startswith(UPSTREAM_LANGUAGE):
        return key
    return _rename(key, [(_pattern(theirs), _filler(ours)) for theirs, ours in _TABLE])


def llmdet_key_to_upstream(key: str) -> str:
    """One of our keys under the original's name; raises like its inverse."""
    if not key.startswith(LLMDET_LANGUAGE):
        return key
    return _rename(key, [(_pattern(ours), _filler(theirs)) for theirs, ours in _TABLE])


def _pattern(template: str) -> str:
    return re.escape(template).replace(r"\{\}", r"(\d+)").replace(r"\*", r"(.+)")


def _filler(template: str) -> str:
    return template.replace("*", "{}")


def _rename(key: str, table: list[tuple[str, str]]) -> str:
    for pattern, filler in table:
        found = re.fullmatch(pattern, key)
        if found:
            return filler.format(*found.groups())
    raise CheckpointError(
        f"language-model key '{key}' fits no known name; which program wrote this checkpoint?"
    )
