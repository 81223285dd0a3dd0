"""Loading weights of any known format into a built model, with nothing dropped in silence."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from llmdet.errors import CheckpointError

from .files import CheckpointFile, StateDict, read_checkpoint
from .transformers_keys import LLMDET_ONLY, reason_without_place, transformers_to_llmdet
from .upstream_keys import LLMDET_LANGUAGE, UPSTREAM_LANGUAGE, upstream_to_llmdet

logger = logging.getLogger(__name__)

_LORA = re.compile(r"\.lora_[AB]\.")


@dataclass(frozen=True)
class LoadReport:
    """What became of every key of a checkpoint and of the model."""

    source: str
    format: str  # llmdet | upstream | mm_grounding_dino | transformers
    loaded: tuple[str, ...]  # our names
    ignored: dict[str, tuple[str, ...]] = field(default_factory=dict)  # reason -> checkpoint keys
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)  # reason -> model keys not set

    def summary(self) -> str:
        """One line for the log."""
        parts = [f"{len(self.loaded)} tensors of '{self.source}' ({self.format})"]
        parts += [f"{len(keys)} ignored: {reason}" for reason, keys in self.ignored.items()]
        parts += [f"{len(keys)} kept as built: {reason}" for reason, keys in self.kept.items()]
        return "loaded " + "; ".join(parts)


def load_weights(model: nn.Module, path: str | Path, *, strict: bool = True) -> LoadReport:
    """Loads a checkpoint of any known format into ``model``.

    Args:
        model: a built detector, with or without language model; wrappers with ``module`` are
            opened. Not moved and not put into another mode.
        path: ``.pth``, ``.safetensors``, a transformers folder, or a hub id.
        strict: with False, keys that do not fit are reported instead of raised.

    Returns:
        The report; its summary is logged.

    Raises:
        CheckpointError: the file cannot be read, or (strict) keys of the detector are missing,
            unknown or of another shape. Language keys are ignored when the model has no
            language model, and the model's own are kept when the checkpoint has none.
    """
    model = getattr(model, "module", model)
    checkpoint = read_checkpoint(path)
    layout, state_dict = to_llmdet(checkpoint)
    report = load_state_dict(model, state_dict, str(path), layout, strict=strict)
    logger.info(report.summary())
    return report


def load_state_dict(
    model: nn.Module, state_dict: StateDict, source: str, layout: str, *, strict: bool = True
) -> LoadReport:
    """The part of :func:`load_weights` after reading: ``state_dict`` already has our names."""
    own = model.state_dict()
    state_dict = _fit_lora_names(state_dict, own)
    misfits = {
        key: f"{key} {tuple(value.shape)}, model {tuple(own[key].shape)}"
        for key, value in state_dict.items()
        if key in own and own[key].shape != value.shape
    }
    ignored, unknown = _sort_unexpected(state_dict, own)
    kept, missing = _sort_missing(state_dict, own)
    if strict:
        _raise_if_any(source, "of another shape", list(misfits.values()))
        _raise_if_any(source, "that the model lacks", unknown)
        _raise_if_any(source, "too few: the model wants", missing)
    fitting = {key: value for key, value in state_dict.items() if key in own and key not in misfits}
    model.load_state_dict(fitting, strict=False)
    for reason, keys in (("of another shape", list(misfits)), ("not in the model", unknown)):
        if keys:
            ignored[reason] = tuple(keys)
    if missing:
        kept["not in the checkpoint"] = tuple(missing)
    return LoadReport(source, layout, tuple(fitting), ignored, kept)


def detect_format(keys: Mapping[str, Tensor]) -> str:
    """Which program's names these are; see :mod:`llmdet.checkpoint`."""
    if any(
        key.startswith(("model.backbone.conv_encoder.", "model.text_backbone.")) for key in keys
    ):
        return "transformers"
    own = ("lmm.causal_lm.", *LLMDET_LANGUAGE[1:])
    if any(key.startswith(own) for key in keys):
        return "llmdet"
    if any(key.startswith(UPSTREAM_LANGUAGE) for key in keys):
        return "upstream"
    if any(key.startswith("bbox_head.") for key in keys):
        return "mm_grounding_dino"
    first = ", ".join(list(keys)[:3])
    raise CheckpointError(f"these are no weights of a grounding detector; the first keys: {first}")


def to_llmdet(checkpoint: CheckpointFile, layout: str = "auto") -> tuple[str, StateDict]:
    """Format and tensors under our names; ``layout`` overrides the detection."""
    if layout == "auto":
        layout = detect_format(checkpoint.state_dict)
    if layout == "transformers":
        return layout, transformers_to_llmdet(checkpoint.state_dict, checkpoint.config)
    if layout == "upstream":
        return layout, upstream_to_llmdet(checkpoint.state_dict)
    return layout, dict(checkpoint.state_dict)


def is_language_key(key: str) -> bool:
    """True for our names of the language model, its connectors and cross-attention."""
    return key.startswith(LLMDET_LANGUAGE)


def _fit_lora_names(state_dict: StateDict, own: Mapping[str, Tensor]) -> StateDict:
    """Finds a linear map's own weight whether or not LoRA is around it, here and there."""
    fitted: StateDict = {}
    for key, value in state_dict.items():
        stem, _, kind = key.rpartition(".")
        wrapped = f"{stem}.base_layer.{kind}"
        bare = key.replace(".base_layer.", ".")
        fitted[next((name for name in (key, wrapped, bare) if name in own), key)] = value
    return fitted


def _sort_unexpected(
    state_dict: StateDict, own: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    has_language = any(is_language_key(key) for key in own)
    ignored: dict[str, list[str]] = {}
    unknown = []
    for key in state_dict:
        if key in own:
            continue
        reason = reason_without_place(key, LLMDET_ONLY)
        if is_language_key(key) and not has_language:
            reason = "the model has no language model"
        if reason:
            ignored.setdefault(reason, []).append(key)
        else:
            unknown.append(key)
    return {reason: tuple(keys) for reason, keys in ignored.items()}, unknown


def _sort_missing(
    state_dict: StateDict, own: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    has_language = any(is_language_key(key) for key in state_dict)
    has_lora = any(_LORA.search(key) for key in state_dict)
    kept: dict[str, list[str]] = {}
    missing = []
    for key in own:
        if key in state_dict:
            continue
        reason = reason_without_place(key, LLMDET_ONLY)
        if is_language_key(key) and not has_language:
            reason = "the checkpoint has no language model"
        elif _LORA.search(key) and not has_lora:
            reason = "the checkpoint has no LoRA"
        if reason:
            kept.setdefault(reason, []).append(key)
        else:
            missing.append(key)
    return {reason: tuple(keys) for reason, keys in kept.items()}, missing


def _raise_if_any(source: str, what: str, keys: list[str]) -> None:
    if keys:
        named = ", ".join(keys[:3]) + (" ..." if len(keys) > 3 else "")
        raise CheckpointError(
            f"'{source}' does not fit the model: {len(keys)} tensors {what} {named}; is it the "
            "config that the checkpoint was trained with? (strict=False loads what fits)"
        )
