"""Weights of transformers' models, read from folders and hub ids; what is missing is an error."""

from __future__ import annotations

from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from llmdet.errors import CheckpointError
from llmdet.utils.hub import hub_options


def read_model(
    kind: Any,
    source: str,
    config: Any,
    *,
    setting: str,
    keys: Mapping[str, str],
    dtype: torch.dtype,
) -> tuple[Any, list[str]]:
    """Build a model with all of its weights.

    Args:
        kind: one of transformers' auto classes.
        source: folder or hub id.
        config: of transformers, of the part that is wanted.
        setting: what our configs call the model, for messages.
        keys: pattern of a tensor's name in the source -> where the model has it.
        dtype: of the weights.

    Returns:
        The model, and the sorted names of tensors that it has no place for.

    Raises:
        CheckpointError: the source cannot be read, or lacks tensors.
    """
    try:
        model, info = kind.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            key_mapping=dict(keys),
            output_loading_info=True,
            trust_remote_code=False,
            **hub_options(source),
        )
    except (OSError, EOFError, ValueError, RuntimeError, SafetensorError, UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{setting}.model='{source}' holds no weights that can be read ({reason}); set "
            f"{setting}.pretrained=False for random ones"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{setting}.model='{source}' lacks {len(missing)} tensors of a {config.model_type}: "
            f"{', '.join(missing[:3])}"
        )
    return model, sorted(info["unexpected_keys"])
