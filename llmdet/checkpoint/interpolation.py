"""Weights between two checkpoints of one model (WiSE-FT, arXiv 2109.01903).

Between what a model was before fine-tuning and what it is after it lie models that have kept most
of the old and learned most of the new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmdet.errors import CheckpointError, ConfigError

from .files import StateDict, read_checkpoint
from .frozen import frozen_meta
from .load import is_language_key, to_llmdet
from .transformers_keys import LLMDET_ONLY, reason_without_place


@dataclass(frozen=True)
class Ends:
    """Two checkpoints under our names, with the same keys and shapes."""

    start: StateDict
    end: StateDict
    meta: dict[str, Any]  # what a file of weights between them must say

    @classmethod
    def read(cls, start: str | Path, end: str | Path) -> Ends:
        """Read two checkpoints, each of any format of :func:`llmdet.checkpoint.read_checkpoint`.

        A language part that one of them has alone is left out, and so is what only training needs.

        Raises:
            CheckpointError: one cannot be read, or they are not of one model.
        """
        files = [read_checkpoint(path) for path in (start, end)]
        first, second = (to_llmdet(file)[1] for file in files)
        metas = [frozen_meta(file.meta) for file in files]
        if any(map(is_language_key, first)) != any(map(is_language_key, second)):
            first, second = _detector_of(first), _detector_of(second)
            metas = [{}, {}]
        first, second = _without_extras(first, second), _without_extras(second, first)
        _check_alike(first, second, str(start), str(end))
        if metas[0] != metas[1]:
            raise CheckpointError(
                f"'{start}' and '{end}' leave out different frozen language models: weights "
                "between them belong to neither"
            )
        return cls(first, second, metas[1])

    def at(self, alpha: float) -> StateDict:
        """Weights (1 - alpha) * start + alpha * end; what is no floating-point number is the end's.

        Args:
            alpha: 0 gives the start and 1 the end, bit by bit.

        Raises:
            ConfigError: ``alpha`` is not from 0 to 1.
        """
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha={alpha} lies outside of 0 (the first file) to 1 (the second)")
        return {key: _between(value, self.end[key], alpha) for key, value in self.start.items()}


def _between(start: Tensor, end: Tensor, alpha: float) -> Tensor:
    if not start.is_floating_point():
        return start if alpha == 0 else end
    # lerp is exact at both ends, and rounding happens once, at the end.
    return torch.lerp(start.float(), end.float(), alpha).to(end.dtype if alpha else start.dtype)


def _detector_of(state_dict: StateDict) -> StateDict:
    return {key: value for key, value in state_dict.items() if not is_language_key(key)}


def _without_extras(state_dict: StateDict, other: StateDict) -> StateDict:
    """Leave out what the other has not, and no model needs."""
    return {
        key: value
        for key, value in state_dict.items()
        if key in other or not reason_without_place(key, LLMDET_ONLY)
    }


def _check_alike(first: Mapping[str, Tensor], second: Mapping[str, Tensor], a: str, b: str) -> None:
    """Raise a CheckpointError unless two state dicts are of one model."""
    for (one, here), (other, there) in (((first, a), (second, b)), ((second, b), (first, a))):
        extra = [key for key in one if key not in other]
        if extra:
            lora = any(".lora_" in key for key in extra)
            remedy = "merge its LoRA first (tools/convert/checkpoint.py --lora merge)"
            raise CheckpointError(
                f"'{here}' and '{there}' are not of one model: the first has {len(extra)} tensors "
                f"that the second lacks, e.g. {extra[0]}; "
                + (remedy if lora else "give checkpoints before and after one fine-tuning")
            )
    differ = [key for key, value in first.items() if value.shape != second[key].shape]
    if differ:
        key = differ[0]
        raise CheckpointError(
            f"'{a}' and '{b}' are not of one model: {len(differ)} tensors differ in shape, e.g. "
            f"{key} {tuple(first[key].shape)} and {tuple(second[key].shape)}"
        )
