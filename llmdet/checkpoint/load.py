"""Loading weights of any known format into a built model, with nothing dropped in silence."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from llmdet.errors import CheckpointError, ConfigError
from llmdet.utils.suggest import did_you_mean

from . import base
from .files import CheckpointFile, StateDict, read_checkpoint
from .frozen import note_replaced, put_back_frozen, put_back_published
from .systems import chatrex, glamm, system_of, upn
from .systems.llmdet import LLMDET_LANGUAGE, UPSTREAM_LANGUAGE, upstream_to_llmdet
from .transformers_keys import LLMDET_ONLY, reason_without_place, transformers_to_llmdet

logger = logging.getLogger(__name__)

#: In ``load_missing``: LoRA in the detector, which changes nothing before it has been trained.
_LORA = "lora"


#: Parts of region language models.
_REGION_LMM = ("towers.", "filler.")
#: The prompts of a detector without words.
_PROPOSALS = "granularity_embedding."


@dataclass(frozen=True)
class LoadReport:
    """What became of every key of a checkpoint and of the model."""

    source: str
    format: str  # llmdet | upstream | mm_grounding_dino | transformers | upn | chatrex | glamm
    loaded: tuple[str, ...]  # our names
    ignored: dict[str, tuple[str, ...]] = field(default_factory=dict)  # reason -> checkpoint keys
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)  # reason -> model keys not set
    training: str = ""  # of which they are the weights, where the file says so

    def summary(self) -> str:
        """One line for the log."""
        kind = self.training or self.format
        parts = [f"{len(self.loaded)} tensors of '{self.source}' ({kind})"]
        parts += [f"{len(keys)} ignored: {reason}" for reason, keys in self.ignored.items()]
        parts += [f"{len(keys)} kept as built: {reason}" for reason, keys in self.kept.items()]
        return "loaded " + "; ".join(parts)


def load_weights(
    model: nn.Module, path: str | Path, *, load_missing: Sequence[str] = ()
) -> LoadReport:
    """Loads a checkpoint of any known format into ``model``.

    Args:
        model: a built detector, with or without language model; wrappers with ``module`` are
            opened. Not moved and not put into another mode.
        path: ``.pth``, ``.safetensors``, an address of one, a transformers folder, or a hub id.
        load_missing: parts of the model, such as "lmm" or "image_captioner", or "lora" for the
            detector's, that the checkpoint may lack and that then stay as they are built;
            everything else must fit.

    Returns:
        The report; its summary is logged.

    Raises:
        CheckpointError: the file cannot be read, or keys are missing, unknown or of another
            shape, or none fits. Language keys are ignored when the model has no language model.
        ConfigError: ``load_missing`` names a part that the model does not have.
    """
    model = getattr(model, "module", model)
    checkpoint = read_whole(path)
    layout, state_dict = to_llmdet(checkpoint)
    if layout == "glamm":  # whose files may leave CLIP out
        put_back_published(state_dict, model)
    put_back_frozen(state_dict, checkpoint.meta, model, str(path), load_missing=load_missing)
    report = load_state_dict(model, state_dict, str(path), layout, load_missing=load_missing)
    report = replace(report, training=_training_of(checkpoint.meta))
    logger.info(report.summary())
    return report


def load_state_dict(
    model: nn.Module,
    state_dict: StateDict,
    source: str,
    layout: str = "llmdet",
    *,
    load_missing: Sequence[str] = (),
) -> LoadReport:
    """The part of :func:`load_weights` after reading: ``state_dict`` already has our names."""
    _check_parts(model, load_missing)
    if (learned := getattr(model, "learned_classes", None)) is not None:
        learned.adopt(state_dict)
    in_model = model.state_dict()
    state_dict = _fit_lora_names(state_dict, in_model)
    _add_tied(state_dict, in_model)
    misfits = [
        f"{key} {tuple(value.shape)}, model {tuple(in_model[key].shape)}"
        for key, value in state_dict.items()
        if key in in_model and in_model[key].shape != value.shape
    ]
    ignored, unknown = _sort_unexpected(state_dict, in_model)
    kept, missing = _sort_missing(state_dict, in_model, load_missing)
    fitting = {key: value for key, value in state_dict.items() if key in in_model}
    _raise_if_any(source, "of another shape", misfits)
    if not fitting:
        raise CheckpointError(f"'{source}' does not fit the model: no tensor has a place in it")
    _raise_if_any(source, "that the model lacks", unknown)
    _raise_if_missing(source, missing)
    _raise_if_not_finite(source, fitting, {name for name, _ in model.named_parameters()})
    note_replaced(model, fitting)
    model.load_state_dict(fitting, strict=False)
    return LoadReport(source, layout, tuple(fitting), ignored, kept)


def _is_ours(meta: Mapping[str, Any]) -> bool:
    """Whether a training of this program wrote the file: mmengine's alone say no processes."""
    return "processes" in meta


def _training_of(meta: Mapping[str, Any]) -> str:
    """Which training of ours a file is from, and how far it was; empty for other files."""
    if not _is_ours(meta):
        return ""
    name = re.sub(r"_\d{8}_\d{6}$", "", str(meta.get("experiment_name", "")))
    return f"a training of ours: {name or 'no name'}, {meta.get('iter', '?')} iterations"


def read_whole(path: str | Path) -> CheckpointFile:
    """A checkpoint, with the detector around the learned classes where it holds these alone.

    Raises:
        CheckpointError: as :func:`read_checkpoint`, or that detector is not there any more.
    """
    checkpoint = read_checkpoint(path)
    record = checkpoint.meta.get(base.ENTRY)
    if record is None:
        return checkpoint
    _, detector = to_llmdet(read_whole(base.find_base(record, path)))
    return replace(checkpoint, state_dict={**detector, **checkpoint.state_dict})


def detect_format(keys: Mapping[str, Tensor], source: str = "the file") -> str:
    """Which program's names these are; see :mod:`llmdet.checkpoint`.

    Raises:
        CheckpointError: they are no detector's; says which system's, where it is known.
    """
    if any(
        key.startswith(("model.backbone.conv_encoder.", "model.text_backbone.")) for key in keys
    ):
        return "transformers"
    if chatrex.is_chatrex(keys):
        return "chatrex"
    if glamm.is_glamm(keys):
        return "glamm"
    named_here = ("lmm.causal_lm.", *LLMDET_LANGUAGE[1:], *_REGION_LMM, _PROPOSALS)
    if any(key.startswith(named_here) for key in keys):
        return "llmdet"
    if any(key.startswith(UPSTREAM_LANGUAGE) for key in keys):
        return "upstream"
    if any(key.startswith("bbox_head.") for key in keys):
        return "mm_grounding_dino"
    if upn.is_upn(keys):
        return "upn"
    system = system_of(keys)
    if system is not None:
        raise CheckpointError(system.sentence(source))
    first = ", ".join(list(keys)[:3])
    raise CheckpointError(f"'{source}' has no weights of a grounding detector; first keys: {first}")


def to_llmdet(checkpoint: CheckpointFile, layout: str = "auto") -> tuple[str, StateDict]:
    """Format and tensors under our names; ``layout`` overrides the detection."""
    if layout == "auto":
        layout = detect_format(checkpoint.state_dict, checkpoint.source)
    if layout == "mm_grounding_dino" and _is_ours(checkpoint.meta):
        layout = "llmdet"  # a detector without language model has the same names in both
    if layout == "transformers":
        return layout, transformers_to_llmdet(checkpoint.state_dict, checkpoint.config)
    if layout == "chatrex":
        logger.warning(chatrex.NOTICE.format(checkpoint.source))
        return layout, chatrex.chatrex_to_llmdet(checkpoint.state_dict)
    if layout == "glamm":
        return layout, glamm.glamm_to_llmdet(checkpoint.state_dict)
    if layout == "upstream":
        return layout, upstream_to_llmdet(checkpoint.state_dict)
    if layout == "upn":
        logger.warning(upn.NOTICE.format(checkpoint.source))
        return layout, upn.upn_to_llmdet(checkpoint.state_dict)
    return layout, dict(checkpoint.state_dict)


def is_language_key(key: str) -> bool:
    """True for our names of the language model, its connectors and cross-attention."""
    return key.startswith(LLMDET_LANGUAGE)


def _fit_lora_names(state_dict: StateDict, in_model: Mapping[str, Tensor]) -> StateDict:
    """Finds a linear map's own weight whether or not LoRA is around it, here and there."""
    fitted: StateDict = {}
    for key, value in state_dict.items():
        stem, _, kind = key.rpartition(".")
        wrapped = f"{stem}.base_layer.{kind}"
        bare = key.replace(".base_layer.", ".")
        fitted[next((name for name in (key, wrapped, bare) if name in in_model), key)] = value
    return fitted


def _sort_unexpected(
    state_dict: StateDict, in_model: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    has_language = any(is_language_key(key) for key in in_model)
    ignored: dict[str, list[str]] = {}
    unknown = []
    for key in state_dict:
        if key in in_model:
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
    state_dict: StateDict, in_model: Mapping[str, Tensor], load_missing: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    new_parts = tuple(f"{part}." for part in load_missing)
    lora_is_new = _LORA in load_missing
    kept: dict[str, list[str]] = {}
    missing = []
    for key in in_model:
        if key in state_dict:
            continue
        reason = reason_without_place(key, LLMDET_ONLY)
        if key.startswith(new_parts) or (lora_is_new and _is_detectors_lora(key)):
            reason = "new, as load_missing says"
        if reason:
            kept.setdefault(reason, []).append(key)
        else:
            missing.append(key)
    return {reason: tuple(keys) for reason, keys in kept.items()}, missing


def _add_tied(state_dict: StateDict, in_model: Mapping[str, Tensor]) -> None:
    """Add, in place, the second name of each tensor that a checkpoint stores under one."""
    places = {in_model[key].data_ptr(): key for key in state_dict if key in in_model}
    for key, value in in_model.items():
        if key not in state_dict and value.numel() and value.data_ptr() in places:
            state_dict[key] = state_dict[places[value.data_ptr()]]


def _check_parts(model: nn.Module, load_missing: Sequence[str]) -> None:
    for part in load_missing:
        first = part.partition(".")[0]
        if part != _LORA and not hasattr(model, first):
            children = [_LORA, *(name for name, _ in model.named_children())]
            raise ConfigError(
                f"load_missing names {part!r}, which is no part of {type(model).__name__}; "
                f"{did_you_mean(first, children)}"
            )


def _is_detectors_lora(key: str) -> bool:
    return ".lora_" in key and not is_language_key(key)


def _raise_if_any(source: str, what: str, keys: list[str]) -> None:
    if keys:
        raise CheckpointError(
            f"'{source}' does not fit the model: {len(keys)} tensors {what} {_first(keys)}; is it "
            "the config that the checkpoint was trained with?"
        )


def _raise_if_missing(source: str, keys: list[str]) -> None:
    if not keys:
        return
    if all(is_language_key(key) for key in keys):
        parts = list(dict.fromkeys(key.partition(".")[0] for key in keys))
        raise CheckpointError(
            f"'{source}' has {len(keys)} tensors too few in the model's language part: "
            f"{_first(keys)}. Captions need weights that were trained with a language model; "
            f"training may begin these parts anew with load_missing={parts}"
        )
    if all(map(_is_detectors_lora, keys)):
        raise CheckpointError(
            f"'{source}' has no LoRA, which model.tuning.lora adds to the detector: begin it with "
            f"load_missing=['{_LORA}'], or use weights that are merged with model.tuning=None"
        )
    _raise_if_any(source, "too few: the model wants", keys)


def _raise_if_not_finite(source: str, state_dict: StateDict, weights: set[str]) -> None:
    """Buffers may hold what they like, such as masks of minus infinity; weights may not."""
    wrong = [
        key
        for key, value in state_dict.items()
        if key in weights and not bool(value.isfinite().all())
    ]
    if wrong:
        raise CheckpointError(
            f"'{source}' holds NaN or infinity in {len(wrong)} tensors: {_first(wrong)}; the run "
            "that saved it had diverged, or the file is damaged: take an earlier one"
        )


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (" ..." if len(keys) > 3 else "")
