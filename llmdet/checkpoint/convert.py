"""Writing a checkpoint in another format."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmdet.errors import CheckpointError, ConfigError

from .files import StateDict, write_checkpoint
from .frozen import complete, frozen_meta
from .load import is_language_key, read_whole, to_llmdet
from .systems.llmdet import llmdet_to_upstream
from .transformers_config import config_from_state_dict, write_processor
from .transformers_keys import LLMDET_ONLY, llmdet_to_transformers, reason_without_place
from .transformers_sizes import Heads, fit_sizes

logger = logging.getLogger(__name__)

SOURCES = ("auto", "upstream", "mm_grounding_dino", "transformers", "llmdet")
TARGETS = ("llmdet", "transformers", "upstream")


@dataclass(frozen=True)
class Conversion:
    """What was written, and what the target format has no place for."""

    source_format: str
    written: tuple[str, ...]  # keys of the target format
    left_out: dict[str, tuple[str, ...]]  # reason -> our keys
    resized: tuple[str, ...] = ()  # our keys whose sizes the target's model cannot have


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    source_format: str = "auto",
    target_format: str = "llmdet",
    model: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
    test_scale: tuple[int, int] = (800, 1333),
) -> Conversion:
    """Reads ``source`` and writes ``target`` in another format.

    Values stay bit-exact; only sizes that transformers' model cannot have are changed, see
    :mod:`.transformers_sizes`.

    Args:
        target: a file (``.pth`` or ``.safetensors``), or the folder to make for transformers.
        model: the ``model`` of our config, for what shapes do not tell; its ``lmm.model`` is where
            a language model that the file leaves out is read from, else where it was in training.
        tokenizer: BERT path or hub id whose tokenizer files go into a transformers folder;
            default: the one named in ``model``.
        test_scale: (shorter side, limit of the longer side) for its image processor.

    Raises:
        ConfigError: an unknown format, or no tokenizer for a transformers folder.
        CheckpointError: a tensor has no place in the target format and no reason to be left out.
    """
    _check_formats(source_format, target_format)
    if target_format == "transformers":
        _tokenizer(tokenizer, model)
    checkpoint = read_whole(source)
    layout, state_dict = to_llmdet(checkpoint, source_format)
    if target_format == "transformers":
        conversion = _write_transformers(Path(target), layout, state_dict, model)
        write_processor(Path(target), _tokenizer(tokenizer, model), model, test_scale)
        return conversion
    if target_format == "upstream":  # whose files hold the whole language model
        lmm = (model or {}).get("lmm") or {}
        whole = complete(state_dict, checkpoint.meta, str(source), lmm.get("model"))
        tensors = llmdet_to_upstream(whole)
        write_checkpoint(target, tensors)
    else:
        tensors = state_dict
        write_checkpoint(target, tensors, frozen_meta(checkpoint.meta))
    return Conversion(layout, tuple(tensors), {})


def _check_formats(source: str, target: str) -> None:
    for value, known, option in ((source, SOURCES, "--from"), (target, TARGETS, "--to")):
        if value not in known:
            raise ConfigError(f"{option} {value} is unknown; one of {', '.join(known)}")


def _tokenizer(given: str | None, model: Mapping[str, Any] | None) -> str:
    found = given or (model or {}).get("language_model", {}).get("name")
    if found is None:
        raise ConfigError(
            "a transformers folder needs the tokenizer files of its BERT: give --tokenizer PATH, "
            "or --config with the config of the model"
        )
    return found


def _write_transformers(
    folder: Path, layout: str, state_dict: StateDict, model: Mapping[str, Any] | None
) -> Conversion:
    if folder.is_file() or folder.suffix in {".pth", ".safetensors"}:
        raise CheckpointError(f"'{folder}' names a file; the transformers format is a folder")
    left_out: dict[str, list[str]] = {}
    for key in state_dict:
        reason = reason_without_place(key, LLMDET_ONLY)
        if is_language_key(key):
            reason = "the language model exists only while training"
        if reason:
            left_out.setdefault(reason, []).append(key)
    detector = {key: value for key, value in state_dict.items() if not is_language_key(key)}
    fitting = fit_sizes(detector, Heads.of_model(model or {}))
    resized = tuple(key for key, value in detector.items() if value.shape != fitting[key].shape)
    config = config_from_state_dict(fitting, model)
    tensors = llmdet_to_transformers(fitting)
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    reasons = {reason: tuple(keys) for reason, keys in left_out.items()}
    return Conversion(layout, tuple(tensors), reasons, resized)
