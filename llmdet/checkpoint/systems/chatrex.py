"""Key map from files of ChatRex and RexSeek to a ``RegionLMM`` of their parts.

The model is that of configs/chatrex and configs/rexseek: a ``DualTower`` named "dual", connectors
of two maps for images and regions, and a language model whose folder has the tokens of objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

StateDict = dict[str, Tensor]

NOTICE = (
    "'{}' holds weights of ChatRex or RexSeek, which are under the IDEA License 1.0: for research "
    "that is not commercial, and so is what is trained from them; the language model of RexSeek is "
    "under the Qwen research licence, which is not commercial either. See docs/licences.md"
)
_MARKS = re.compile(r"(model\.)?(mm_object_projector|vision_tower_aux\.vision_(stem|stages))\.")
#: Patterns of their names -> ours; the first that fits wins.
_TABLE = (
    (r"(?:model\.)?mm_projector\.(.+)", r"filler.connectors.image.projector.\1"),
    (r"(?:model\.)?mm_object_projector\.(.+)", r"filler.connectors.region.projector.\1"),
    (
        r"(?:model\.)?vision_tower\.vision_tower\.(?:vision_model\.)?(.+)",
        r"towers.dual.coarse.encoder.\1",
    ),
    (r"((?:model|lm_head)\..+)", r"lmm.causal_lm.\1"),
)
_FINE = re.compile(r"(?:model\.)?vision_tower_aux\.(?:vision_)?(.+)")


def is_chatrex(keys: Iterable[str]) -> bool:
    """Whether these are names of ChatRex's or RexSeek's files."""
    return any(map(_MARKS.match, keys))


def chatrex_to_llmdet(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Renames their keys to ours.

    What their ConvNeXt has behind its stages, and counts of positions that are no weights, are
    left out: nothing reads them.
    """
    renamed = {_name(key): value for key, value in state_dict.items()}
    return {name: value for name, value in renamed.items() if name is not None}


def _name(key: str) -> str | None:
    from llmdet.models.vision.convnext import transformers_name

    if key.endswith(("position_ids", "rotary_emb.inv_freq")):
        return None
    if found := _FINE.fullmatch(key):
        name = transformers_name(found[1])
        return name and f"towers.dual.fine.encoder.{name}"
    for theirs, ours in _TABLE:
        if found := re.fullmatch(theirs, key):
            return found.expand(ours)
    return key
