"""One text encoder for model and data: what the model says of it, the transforms are told."""

from __future__ import annotations

from typing import Any

from llmdet.errors import ConfigError
from llmdet.prompts.tokenizers import MAX_TOKENS, TEXT_ENCODER
from llmdet.utils.config import type_name, typed_parts

#: Transforms that write prompts.
_WRITERS = ("RandomSamplingNegPos", "RandomSamplingNegPos2", "SampleExpressions")


def share_text_encoder(config: Any) -> None:
    """Give the transforms of all loaders the tokenizer and the limit of the model, in place.

    ``model.language_model`` is the one place where ``name`` and ``max_tokens`` stand.

    Args:
        config: a complete config; without ``model.language_model`` nothing happens.

    Raises:
        ConfigError: a transform names another tokenizer or limit than the model.
    """
    language = (config.get("model") or {}).get("language_model")
    if not language:
        return
    shared = {
        "tokenizer_name": ("name", language.get("name", TEXT_ENCODER)),
        "max_tokens": ("max_tokens", language.get("max_tokens", MAX_TOKENS)),
    }
    for split in ("train", "val", "test", "zero_shot"):
        steps = typed_parts((config.get(f"{split}_dataloader") or {}).get("dataset"))
        for step in (step for step in steps if type_name(step) in _WRITERS):
            for field, (source, value) in shared.items():
                if step.setdefault(field, value) != value:
                    raise ConfigError(
                        f"{step['type']} has {field}={step[field]!r}, but "
                        f"model.language_model.{source} is {value!r}: leave {field} out, it is "
                        "taken from the model"
                    )
