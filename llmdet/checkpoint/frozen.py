"""Frozen language models and image encoders stay out of checkpoints: their source has them.

A checkpoint records in ``meta["frozen"]`` where the weights that it leaves out are from, and the
hash of their values. Loading takes them from the model, which was built from its source, and
verifies that they are the same.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmdet.errors import CheckpointError

logger = logging.getLogger(__name__)

StateDict = dict[str, Tensor]

#: ``source_kind`` of what speaks; other kinds see.
LANGUAGE_MODEL = "language model"
#: Of an encoder whose weights are a file beside its settings.
OPEN_CLIP = "ConvNeXt of open_clip"
#: Types are compared in this one where they differ: every wider type rounds to it in one way.
_COMMON = torch.bfloat16


@dataclass(frozen=True)
class SourcePart:
    """Weights of a model that were read from a published language model or image encoder.

    The module that holds them says so by ``source`` (folder, file or hub id), ``source_names``
    (their names there), ``source_part`` (its attribute that has them) and ``source_kind``.
    """

    module: Any
    prefix: str  # of its keys in the state dict of the whole model
    tensors: StateDict  # key of the source -> tensor of the model
    keys: dict[str, str]  # key of the source -> key of the whole model
    frozen: bool  # whether training leaves all of them as they are
    repeated: tuple[str, ...]  # keys of the source for tensors that have another key before

    def record(self) -> dict[str, Any]:
        """What a checkpoint that leaves these weights out says of them.

        It is kept, since they do not change: weights that are spread over processes later could
        not be read here.
        """
        known = getattr(self.module, "source_record", None)
        if known is None:
            dtype = next(iter(self.tensors.values())).dtype
            kinds = {dtype, _COMMON}
            known = self.module.source_record = {
                "kind": self.module.source_kind,
                "source": str(self.module.source),
                "dtype": _name(dtype),
                "sha256": {_name(kind): digest(self.tensors, kind) for kind in kinds},
            }
        return known

    def verify(self, record: Mapping[str, Any], path: str) -> None:
        """Raise a CheckpointError unless these are the weights that ``record`` describes."""
        verify(self.tensors, record, str(self.module.source), path, self.prefix)


def source_parts(model: nn.Module) -> Iterator[SourcePart]:
    """The parts of ``model`` whose weights a published model has."""
    for name, module in model.named_modules():
        if getattr(module, "source", None) is None or not hasattr(module, "source_names"):
            continue
        holder = str(module.source_part)
        prefix = f"{name}.{holder}." if name else f"{holder}."
        present = getattr(module, holder).state_dict(keep_vars=True)
        names = {source: _present_name(source, present) for source in module.source_names}
        tensors = {source: present[present_name] for source, present_name in names.items()}
        yield SourcePart(
            module=module,
            prefix=prefix,
            tensors={source: tensor.detach() for source, tensor in tensors.items()},
            keys={source: prefix + present_name for source, present_name in names.items()},
            frozen=not any(tensor.requires_grad for tensor in tensors.values()),
            repeated=_second_names(tensors),
        )


def leave_out_frozen(checkpoint: dict[str, Any], model: nn.Module) -> None:
    """Take out of a training checkpoint, in place, what its source has, and record where it is.

    Of a part that trains, the second names of tied weights are left out. A model whose sizes are
    not those of the state dict is saved as it is.
    """
    state_dict = checkpoint.get("state_dict", {})
    for part in source_parts(model):
        sizes = {part.keys[name]: value.shape for name, value in part.tensors.items()}
        if any(key not in state_dict or state_dict[key].shape != sizes[key] for key in sizes):
            continue
        left_out = list(part.keys.values())
        if part.frozen:
            checkpoint.setdefault("meta", {}).setdefault("frozen", {})[part.prefix] = part.record()
        else:
            left_out = [part.keys[name] for name in part.repeated]
        for entry, lead in (("state_dict", ""), ("ema_state_dict", "module.")):
            for key in left_out:
                checkpoint.get(entry, {}).pop(lead + key, None)


def put_back_frozen(
    state_dict: StateDict,
    meta: Mapping[str, Any],
    model: nn.Module,
    path: str,
    lead: str = "",
    load_missing: Sequence[str] = (),
) -> None:
    """Add to ``state_dict``, in place, the frozen weights that its file leaves out.

    Args:
        state_dict: under our names, each after ``lead``.
        meta: of the file.
        model: built from the same source, and not trained since.
        path: of the file, for the error.
        load_missing: parts of the model that the file may lack.

    Raises:
        CheckpointError: the model's source holds other weights than the file was trained with, or
            the model was built without one.
    """
    records = dict(meta.get("frozen") or {})
    for part in source_parts(model):
        record = records.pop(part.prefix, None)
        missing = [name for name, key in part.keys.items() if lead + key not in state_dict]
        if record is not None and missing:
            part.verify(record, path)
            state_dict.update({lead + part.keys[name]: part.tensors[name] for name in missing})
    keys = model.state_dict() if records else ()
    for prefix, record in records.items():
        new = prefix.startswith(tuple(f"{part}." for part in load_missing))
        if not new and any(k.startswith(prefix) and lead + k not in state_dict for k in keys):
            raise CheckpointError(
                f"'{path}' leaves out the weights of the frozen {_kind(record)} "
                f"'{record['source']}', and the model was not built from it: let "
                f"{_setting(prefix, record)} of the config name it, with pretrained=True"
            )


def put_back_published(state_dict: StateDict, model: nn.Module) -> None:
    """Add to ``state_dict``, in place, the published parts of a model of which it has nothing.

    For files of other programs, which do not say what they leave out.
    """
    for part in source_parts(model):
        if part.frozen and not any(key in state_dict for key in part.keys.values()):
            state_dict.update({part.keys[name]: value for name, value in part.tensors.items()})


def frozen_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What of a file's ``meta`` a copy of its weights must keep."""
    return {key: meta[key] for key in ("frozen",) if key in meta}


def complete(
    state_dict: Mapping[str, Tensor], meta: Mapping[str, Any], path: str, source: Any = None
) -> StateDict:
    """A copy of ``state_dict`` with the frozen weights that its file leaves out, read anew.

    Args:
        state_dict: under our names.
        meta: of the file.
        path: of the file, for the error.
        source: folder or hub id of the language model now; default: what it was while training.

    Raises:
        CheckpointError: the source cannot be read, or holds other weights.
    """
    from llmdet.models.language.causal_lm import build_causal_lm
    from llmdet.models.vision.convnext import build_convnext, read_open_clip
    from llmdet.models.vision.sam import build_sam_encoder
    from llmdet.models.vision.transformers_tower import build_encoder

    builders: dict[str, Callable[..., nn.Module]] = {
        LANGUAGE_MODEL: build_causal_lm,
        "image encoder": build_encoder,
        "SAM": build_sam_encoder,
        "ConvNeXt": build_convnext,
    }
    full = dict(state_dict)
    for prefix, record in (meta.get("frozen") or {}).items():
        speaks = _kind(record) == LANGUAGE_MODEL
        place = source if speaks and isinstance(source, str) else record["source"]
        dtype = getattr(torch, record["dtype"])
        if _kind(record) == OPEN_CLIP:
            base = {name: value.to(dtype) for name, value in read_open_clip(place).items()}
        else:
            base = builders[_kind(record)](place, dtype=dtype).state_dict()
        verify(base, record, place, path, prefix)
        for name, value in base.items():
            stem, _, kind = name.rpartition(".")
            adapted = f"{prefix}{stem}.lora_A.default.weight" in full
            full[f"{prefix}{stem}.base_layer.{kind}" if adapted else prefix + name] = value
    return _with_tied_head(full)


def _with_tied_head(state_dict: StateDict) -> StateDict:
    """Add the output head of a language model that shares its embeddings, stored once."""
    words = "lmm.causal_lm.model.embed_tokens.weight"
    if words in state_dict:
        state_dict.setdefault("lmm.causal_lm.lm_head.weight", state_dict[words])
    return state_dict


def note_replaced(model: nn.Module, loaded: Mapping[str, Tensor]) -> None:
    """Forget the source of each part into which a checkpoint brings other weights."""
    for part in source_parts(model):
        for name, key in part.keys.items():
            mine = part.tensors[name]
            if key in loaded and not torch.equal(loaded[key].to(mine), mine):
                logger.info(
                    "the checkpoint's %s is not that of '%s': checkpoints of this run will hold it",
                    part.module.source_kind,
                    part.module.source,
                )
                part.module.source = part.module.source_record = None
                break


def verify(
    tensors: Mapping[str, Tensor], record: Mapping[str, Any], source: str, path: str, prefix: str
) -> None:
    """Raise a CheckpointError unless ``tensors`` are those that a checkpoint was trained with."""
    dtype = next(iter(tensors.values())).dtype
    kind = dtype if _name(dtype) in record["sha256"] else _COMMON
    if digest(tensors, kind) != record["sha256"][_name(kind)]:
        raise CheckpointError(
            f"'{path}' was trained on the frozen {_kind(record)} '{record['source']}', and "
            f"'{source}' holds other weights today (their hash differs): give the model that it "
            f"was trained with ({_setting(prefix, record)} of the config)"
        )


def _kind(record: Mapping[str, Any]) -> str:
    """What was left out; files of versions that knew nothing else do not say it."""
    return record.get("kind", LANGUAGE_MODEL)


def _setting(prefix: str, record: Mapping[str, Any]) -> str:
    """The setting of a config that names the source of the weights under a prefix."""
    name = "weights" if _kind(record) == OPEN_CLIP else "model"
    return f"{prefix.rstrip('.').rpartition('.')[0]}.{name}"


def digest(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    """sha256 of names and values, rounded to ``dtype``; tied weights count once."""
    total = hashlib.sha256()
    seen = set()
    for name in sorted(tensors):
        value = tensors[name].detach()
        if value.data_ptr() in seen:
            continue
        seen.add(value.data_ptr())
        rounded = value.to(dtype) if value.is_floating_point() else value
        total.update(f"{name} {tuple(value.shape)}\n".encode())
        total.update(rounded.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _second_names(parameters: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of parameters that have another name before."""
    first: dict[int, str] = {}
    return tuple(
        name for name, value in parameters.items() if first.setdefault(id(value), name) != name
    )


def _present_name(source: str, present: Mapping[str, Tensor]) -> str:
    """Where a weight of the source is now that LoRA may be around its map."""
    stem, _, kind = source.rpartition(".")
    return source if source in present else f"{stem}.base_layer.{kind}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
